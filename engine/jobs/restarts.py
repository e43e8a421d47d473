"""Whether a run whose trainer has ended is begun again, and after how long."""

from __future__ import annotations

EXIT_RETRY = 75  # sysexits' EX_TEMPFAIL: the trainer asks to be started again
MISTAKES = 64  # exit codes from 1 to below this are for a person to mend
RESTARTS = 5  # in a row without a step beyond the furthest one
LONGEST_BACKOFF = 60.0


def is_mistake(code: int | None) -> bool:
    """Whether the trainer ended with a code that says another start would end the same way."""
    return code is not None and code != EXIT_RETRY and code < MISTAKES


class Restarts:
    """Counts restarts that came no further than any before."""

    def __init__(self) -> None:
        self._failures = 0
        self._furthest = 0

    def next(self, step: int) -> float | None:
        """Seconds to wait before the next start after an end at ``step``; None where it is enough."""
        self._failures = 1 if step > self._furthest else self._failures + 1
        self._furthest = max(self._furthest, step)
        if self._failures > RESTARTS:
            return None
        return min(LONGEST_BACKOFF, 2.0 ** (self._failures - 1) - 0.5)
