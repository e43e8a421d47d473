"""A clock that stands still while a run is paused: what a run measures of its work includes no pause."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class WorkClock:
    def __init__(self) -> None:
        self._paused = 0.0

    def now(self) -> float:
        """Return seconds, of which only differences mean something."""
        return time.perf_counter() - self._paused

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Do not count the time within."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._paused += time.perf_counter() - begun
