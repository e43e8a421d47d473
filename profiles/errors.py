"""Defines the exceptions whose message is for the user."""

from __future__ import annotations

from profiles.printable import one_line


class UserError(Exception):
    """An error that the user can fix.

    ``str(error)`` is one line that names the setting or file, its value and the remedy. The command line prints it
    without a traceback and exits with ``exit_code``. What a message quotes may come from any file, so it is made safe
    to print here.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class SpecError(UserError):
    """An invalid request: an unknown key, profile or option, or a value out of range."""

    exit_code = 2


class NeedsAttentionError(UserError):
    """Something outside a run has changed, such as its data. Its supervisor waits until a user has put it right."""


class OutputError(UserError):
    """What a command prints cannot be written, for example because a disk is full."""


class ForceNeeded(UserError):
    """A launch that is refused unless the user insists. ``reason``: the message without the words about --force."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}, or start it anyway with --force")
        self.reason = reason
