"""How often something is painted, where a person may change that at any moment."""

from __future__ import annotations

import time
from collections.abc import Callable

BASE = 0.5  # seconds between two questions whether it is time: the shortest pace there is
_SLACK = BASE / 4  # a timer that came a little early is not sent away for a whole beat


class RefreshRate:
    """``every`` gives the seconds between two times; it is asked anew each time."""

    def __init__(self, every: Callable[[], float]) -> None:
        self._every = every
        self._last = float("-inf")

    def due(self) -> bool:
        """Whether it is time again; if so, the next time is counted from now."""
        now = time.monotonic()
        if now - self._last < self._every() - _SLACK:
            return False
        self._last = now
        return True
