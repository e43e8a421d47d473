"""Decides whether and after how long a run whose trainer exited is restarted."""

from __future__ import annotations

MAX_RESTARTS = 5  # in a row without a step beyond the furthest one
MAX_BACKOFF = 60.0  # seconds


class Restarts:
    """Counts restarts without progress."""

    def __init__(self) -> None:
        self._failures = 0
        self._furthest = 0

    def next_backoff(self, step: int) -> float | None:
        """Return the seconds to wait before the restart after an exit at ``step``; None to give up."""
        self._failures = 1 if step > self._furthest else self._failures + 1
        self._furthest = max(self._furthest, step)
        if self._failures > MAX_RESTARTS:
            return None
        return min(MAX_BACKOFF, 2.0 ** (self._failures - 1) - 0.5)
