"""Says in words what a whole run costs: speed, tokens, time, checkpoints, energy."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tui.text.format import count, duration, size

if TYPE_CHECKING:
    from engine.memory.run_cost import RunCost

_MUCH = 0.05  # of the time: validation that takes more is named
_LONGEST = 100 * 365 * 86400.0  # seconds; no date is shown after that


def cost_lines(cost: RunCost, now: float | None = None) -> list[str]:
    """Return the speed with what it rests on, and what the whole run takes at it. ``now``: unix seconds."""
    rate = cost.rate
    validating = f", {duration(cost.validation)} of it validating" if cost.validation > _MUCH * cost.seconds else ""
    parts = [f"{count(cost.tokens)} tokens in {time_of(cost, now)}{validating}"]
    parts.append(f"checkpoints up to {size(cost.disk)}")
    if cost.kwh is not None:
        parts.append(f"up to {cost.kwh:,.0f} kWh at {cost.watts:.0f} W")
    return [f"about {count(rate.tok_s)} tokens/s ({rate.basis})", "; ".join(parts)]


def time_of(cost: RunCost, now: float | None = None) -> str:
    """Return how long a run takes that starts now, and when it ends: the hour if within a day, else the date."""
    text = duration(cost.seconds)
    if cost.seconds >= _LONGEST:
        return text
    form = "%H:%M" if cost.seconds < 86400 else "%d %b %Y"
    return f"{text}, until {time.strftime(form, time.localtime((time.time() if now is None else now) + cost.seconds))}"
