"""Computes what a person who watches a run for weeks wants to know: when it ends, what it has used, what is left."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from statistics import median_low
from typing import TYPE_CHECKING, NamedTuple

from engine.events.marks import Mark
from engine.events.metrics import VAL_LOSS
from engine.events.series import Point, Series
from tui.app.state.x_axis import interpolate
from tui.text import format as fmt

if TYPE_CHECKING:
    from tui.app.state.run_view import RunView

_WINDOWS = 5  # whose median counts
SMOOTHING = 0.98  # weight of the loss so far in the smoothed loss
_CLOCK_ERROR = 60.0  # seconds; a time that is further ahead is not one to come, the clock was set back
_GAP = 900.0  # seconds without a sample for which no power is counted: nothing ran
_DAY = 86400.0


class Checkpoints(NamedTuple):
    """What is known of a run's checkpoints: bytes of the newest, and bytes that are free where they are written."""

    bytes: float | None = None
    free: float | None = None


def smoothed(points: Sequence[Point], average: float | None = None) -> float | None:
    """Return the exponential moving average of the means, continued from ``average``."""
    for _, _, mean, _ in points:
        if mean is not None:
            average = mean if average is None else SMOOTHING * average + (1 - SMOOTHING) * mean
    return average


def seconds_aside(times: Series, steps: Series, every: int) -> float | None:
    """Return the seconds of a step beside its training, for validation, evaluation, samples and saving.

    ``times``: when steps ended; ``steps``: their seconds. What is done every so many steps is spread over these. The
    median of the last windows of ``every`` steps: a pause or a restart in one of them does not count. None until two
    windows are known.
    """
    if not every or len(times) < 2:
        return None
    ends, own = times.values("last"), steps.values()
    last = int(times.x[-1]) // every
    first = max(-(-int(times.x[0]) // every), last - _WINDOWS)
    found = []
    for number in range(first, last):
        begin, end = number * every, (number + 1) * every
        part = own[bisect_right(steps.x, begin) : bisect_right(steps.x, end)]
        wall = interpolate(times.x, ends, end) - interpolate(times.x, ends, begin)
        if part and wall > 0:  # a clock may have been set back
            found.append(max(wall / every - sum(part) / len(part), 0.0))
    return median_low(found) if len(found) > 1 else None


def lowest(points: Sequence[Point]) -> tuple[float, float] | None:
    """Return the lowest value and its step; None if there is none."""
    known = [(low, x) for x, low, _, _ in points if low is not None]
    return min(known) if known else None


def energy(power: Sequence[Point]) -> float | None:
    """Return the kWh of a power in watts over time; None where none was measured."""
    joules, known = 0.0, False
    for (before, *_), (now, _, watts, _) in pairwise(power):
        if watts is not None and 0 < now - before < _GAP:
            joules, known = joules + watts * (now - before), True
    return joules / 3.6e6 if known else None


def finish_text(now: float, seconds: float | None) -> str:
    """Return when a run ends: a time of today, else a date; no more precise than such a forecast is."""
    if seconds is None:
        return fmt.NOTHING
    step = 60.0 if seconds < 6 * 3600 else 600.0 if seconds < 2 * _DAY else 3600.0
    return fmt.clock(round((now + seconds) / step) * step, now)


def items(view: RunView, checkpoints: Checkpoints, now: float) -> list[tuple[str, str, int]]:
    """Return label, value and the cells of the value of everything known, the most important first."""
    found: list[tuple[str, str, int]] = []
    if (average := view.smooth_loss) is not None:
        found.append(("smooth loss", fmt.loss(average), 5))
    if (best := lowest(view.series[VAL_LOSS].points)) is not None:
        found.append(("best val", f"{fmt.loss(best[0])} at {fmt.exact(best[1])}", 5))
    found += _checkpoint_items(view, checkpoints, now)
    seen = view.at_step("tokens")
    if seen is not None:
        found.append(("tokens", fmt.count(seen), 5))
    if view.active and (rate := view.tokens_a_day()) is not None:
        found.append(("a day", fmt.count(rate), 5))
    if (used := energy(view.series["power_w"].points)) is not None:
        found.append(("energy", f"{used:.1f} kWh", 8))
    return found


def _checkpoint_items(view: RunView, checkpoints: Checkpoints, now: float) -> list[tuple[str, str, int]]:
    found: list[tuple[str, str, int]] = []
    last = newest_checkpoint(view.marks.to_list())
    if view.active and (last is not None or view.loaded):
        found.append(("checkpoint", "none yet" if last is None else _age(last, now), 7))
        if (step := view.next_save()) is not None:
            found.append(("next at", fmt.exact(step), 1))
    if checkpoints.free is not None and checkpoints.bytes:
        found.append(("disk for", f"{checkpoints.free // checkpoints.bytes:,.0f} checkpoints", 1))
    return found


def newest_checkpoint(marks: Sequence[Mark]) -> Mark | None:
    """Return the last in the order of the log: times fall where the clock is set back."""
    return next((mark for mark in reversed(marks) if mark.kind == "checkpoint"), None)


def _age(mark: Mark, now: float) -> str:
    """Return how long ago it was; its step where the clock was set back since."""
    seconds = seconds_between(mark.t, now)
    return f"at {fmt.exact(mark.step)}" if seconds is None else f"{fmt.rough_duration(seconds)} ago"


def seconds_between(start: float, end: float) -> float | None:
    """Return the seconds from ``start`` to ``end``; None where the clock was set back between them."""
    return max(end - start, 0.0) if end >= start - _CLOCK_ERROR else None


def seconds_left(asked: float, wait: float, now: float) -> float:
    """Return what is left of the time to answer; never more than all of it, whatever was done to the clock."""
    return min(max(asked + wait - now, 0.0), wait)
