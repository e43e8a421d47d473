"""Reports a stall: no record from the trainer for ten times the median step time.

It only reports. The cause may be a slow disk, a debugger or a busy device, so killing the trainer is left to the user.
"""

from __future__ import annotations

import statistics
from collections import deque

from engine.events.phases import RUNNING, SAVING
from engine.events.types import Alert, Event, Start, State, Step, Telemetry

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

    def observe(self, event: Event, now: float) -> str | None:
        """Take an event into account; return a message where it ends a stall."""
        match event:
            case Telemetry() | Alert():
                return None  # from the supervisor itself
            case Start():
                self._steps.clear()  # another attempt may have another micro-batch or another machine
            case State():
                self._phase = event.phase
            case Step() if event.step_s is not None:
                self._steps.append(event.step_s)
        silence, self._last_record = now - self._last_record, now
        if self._stalled:
            self._stalled = False
            return f"it lasted {silence:.0f} s"
        return None

    def check(self, now: float) -> str | None:
        """Return a message where the run has just stalled."""
        if self._stalled or not self._steps or self._phase not in (RUNNING, SAVING):
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
