"""Whether a run has stopped coming forward: ten times as long as its steps take, and nothing heard.

That is said and no more. What hangs may be a slow disk, a debugger or a card that thinks; only a person should kill.
"""

from __future__ import annotations

import statistics
from collections import deque
from typing import Any

PATIENCE = 10  # × the median step
SHORTEST = 10.0  # seconds; validation and saving between steps of milliseconds are no stall
MEMORY = 101  # steps whose median counts


class Watchdog:
    """Told of every record, logged or live; times are seconds of a clock that never steps."""

    def __init__(self) -> None:
        self._steps: deque[float] = deque(maxlen=MEMORY)
        self._heard = 0.0
        self._phase: str | None = None
        self._said = False

    def heard(self, record: dict[str, Any], now: float) -> str | None:
        """Take in a record of the trainer's; what to say where it ends a stall."""
        kind = record["kind"]
        if kind == "telemetry":
            return None  # the supervisor's own
        if kind == "start":
            self._steps.clear()  # another attempt may have another micro, or another machine
        elif kind == "state":
            self._phase = record.get("phase")
        elif kind == "step" and isinstance(record.get("step_s"), (int, float)):
            self._steps.append(record["step_s"])
        if kind == "alert":
            return None
        silence, self._heard = now - self._heard, now
        if self._said:
            self._said = False
            return f"goes on after {silence:.0f} s"
        return None

    def check(self, now: float) -> str | None:
        """What to say where the run has just turned out to be stalled."""
        if self._said or not self._steps or self._phase not in ("running", "saving"):
            return None
        median = statistics.median(self._steps)
        silence = now - self._heard
        if silence < max(PATIENCE * median, SHORTEST):
            return None
        self._said = True
        return (
            f"no progress for {silence:.0f} s, a step takes {median:.2g} s; the run is left alone:"
            " look at mla-tui logs, end it with mla-tui stop --kill"
        )
