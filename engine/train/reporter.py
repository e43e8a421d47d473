"""Whom the loop reports to and takes orders from."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from engine.events.commands import Command
from engine.events.log import Record


class Reporter(Protocol):
    """A run's log and commands (``engine.train.run_reporter``), or whoever started the trainer in the foreground."""

    def record(self, kind: str, **fields: Any) -> None:
        """Write one record."""

    def progress(self, **fields: Any) -> None:
        """Say how far the present step is; may be dropped."""

    def commands(self) -> list[Command]:
        """What was asked since the last call."""

    def past(self) -> list[Record]:
        """The records of earlier attempts that a restart obeys, in order: applied edits, rewinds, and pauses and
        resumptions that somebody asked for."""

    def close(self) -> None:
        """Nothing follows."""


class SilentReporter:
    """For all ranks but the first, which speaks for them."""

    def record(self, kind: str, **fields: Any) -> None:
        pass

    def progress(self, **fields: Any) -> None:
        pass

    def commands(self) -> list[Command]:
        return []

    def past(self) -> list[Record]:
        return []

    def close(self) -> None:
        pass


class ShowReporter(SilentReporter):
    """A run without a run: every record is shown and nobody can ask for anything but by a signal."""

    def __init__(self, show: Callable[[Record], None]) -> None:
        self._show = show

    def record(self, kind: str, **fields: Any) -> None:
        self._show({"t": time.time(), "kind": kind, "attempt": 1, **fields})

    def progress(self, **fields: Any) -> None:
        self.record("progress", **fields)
