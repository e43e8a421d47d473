"""Whether a run whose trainer has ended is begun again, and after how long."""

from __future__ import annotations

RESTARTS = 5  # in a row without a step beyond the furthest one
LONGEST_BACKOFF = 60.0


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
