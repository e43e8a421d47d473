"""What a pack tells its user while it works."""

from __future__ import annotations

from typing import Protocol


class Report(Protocol):
    def stage(self, text: str) -> None:
        """Say what begins now, or how far it is."""

    def note(self, text: str) -> None:
        """Say something that the user should read, in a line."""

    def progress(self, read: int, total: int, tokens: int, done: int) -> None:
        """Say how many bytes of files are read, of how many, and the tokens so far; ``done`` bytes are of earlier."""


class Silent:
    """Says nothing."""

    def stage(self, text: str) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def progress(self, read: int, total: int, tokens: int, done: int) -> None:
        pass
