"""Defines the exit codes of a trainer and what each means to its supervisor."""

from __future__ import annotations

EXIT_RETRY = 75  # sysexits' EX_TEMPFAIL: the trainer asks to be restarted
EXIT_NEEDS_ATTENTION = 76  # something outside the run has changed; it goes on once a user has put that right
USER_ERROR_LIMIT = 64  # exit codes from 1 to below this one report an error that the user has to fix


def is_user_error(code: int | None) -> bool:
    """Return whether the trainer reported an error that a restart would only repeat."""
    return code is not None and code < USER_ERROR_LIMIT
