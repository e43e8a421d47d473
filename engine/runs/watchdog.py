"""Reports a stall: no record from the trainer for ten times the median step time.

It only reports. The cause may be a slow disk, a debugger or a busy device, so killing the trainer is left to the user.
"""

from __future__ import annotations

import statistics
from collections import deque
from typing import Any

STALL_STEPS = 10  # median steps of silence
MIN_STALL = 10.0  # seconds; validation and saving between steps of milliseconds are no stall
WINDOW = 101  # steps in the median


class Watchdog:
    """Receives every record, logged or live. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._steps: deque[float] = deque(maxlen=WINDOW)
        self._last_record = 0.0
        self._phase: str | None = None
        self._stalled = False

    def observe(self, record: dict[str, Any], now: float) -> str | None:
        """Take a record into account; return a message where it ends a stall."""
        kind = record["kind"]
        if kind == "telemetry":
            return None  # from the supervisor itself
        if kind == "start":
            self._steps.clear()  # another attempt may have another micro-batch or another machine
        elif kind == "state":
            self._phase = record.get("phase")
        elif kind == "step" and isinstance(record.get("step_s"), (int, float)):
            self._steps.append(record["step_s"])
        if kind == "alert":
            return None
        silence, self._last_record = now - self._last_record, now
        if self._stalled:
            self._stalled = False
            return f"resumes after a stall of {silence:.0f} s"
        return None

    def check(self, now: float) -> str | None:
        """Return a message where the run has just stalled."""
        if self._stalled or not self._steps or self._phase not in ("running", "saving"):
            return None
        median = statistics.median(self._steps)
        silence = now - self._last_record
        if silence < max(STALL_STEPS * median, MIN_STALL):
            return None
        self._stalled = True
        return (
            f"no progress for {silence:.0f} s, a step takes {median:.2g} s; the run is not killed:"
            " see mla-tui logs, kill it with mla-tui stop --kill"
        )
