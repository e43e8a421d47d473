"""Limits how often something is painted, by an interval that may change at any time."""

from __future__ import annotations

import time
from collections.abc import Callable

TICK = 0.5  # seconds between two checks, and the shortest interval
_SLACK = TICK / 4  # a timer that fires slightly early must not wait for the next tick


class RefreshRate:
    """``interval`` returns the seconds between two paints; it is called at every check."""

    def __init__(self, interval: Callable[[], float]) -> None:
        self._interval = interval
        self._last = float("-inf")

    def due(self) -> bool:
        """Return whether a paint is due; if so, start the next interval."""
        now = time.monotonic()
        if now - self._last < self._interval() - _SLACK:
            return False
        self._last = now
        return True
