"""Exit codes of a trainer, and what its supervisor makes of them."""

from __future__ import annotations

EXIT_RETRY = 75  # sysexits' EX_TEMPFAIL: the trainer asks to be started again
USER_ERROR_LIMIT = 64  # exit codes from 1 to below this are for a person to mend


def is_user_error(code: int | None) -> bool:
    """Whether the trainer ended with a code that says another start would end the same way."""
    return code is not None and code != EXIT_RETRY and code < USER_ERROR_LIMIT
