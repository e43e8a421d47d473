"""Computes which steps of a run its charts show while a user zooms and pans. Numbers only."""

from __future__ import annotations

import math
from dataclasses import dataclass

MIN_WIDTH = 8.0  # steps
_SHIFTS_PER_WIDTH = 5  # a range that follows the newest step shifts in jumps, because each shift redraws a chart


@dataclass(frozen=True, slots=True)
class StepRange:
    """``width`` steps up to ``end``; with ``end`` None, the newest steps of an active run."""

    width: float
    end: float | None = None

    def bounds(self, first: float, last: float) -> tuple[float, float]:
        """Return the first and last step shown, for a run with the steps ``first`` to ``last``."""
        if self.end is not None:
            return self.end - self.width, self.end
        shift = max(math.ceil(self.width / _SHIFTS_PER_WIDTH), 1)
        end = math.ceil(last / shift) * shift
        return end - self.width, end


def zoom(
    current: StepRange | None, first: float, last: float, factor: float, at: float | None = None
) -> StepRange | None:
    """Return the range after zooming in (``factor`` < 1) or out; None shows all steps.

    The step ``at`` keeps its place on screen; without it the newest step does if it is in view, else the middle.
    """
    begin, end = _current_bounds(current, first, last)
    follows_newest = current is None or current.end is None
    width = max((end - begin) * factor, MIN_WIDTH)
    if width >= last - first:
        return None
    if at is None and follows_newest:
        return StepRange(width)
    fixed = (begin + end) / 2 if at is None else min(max(at, begin), end)
    fraction = (fixed - begin) / (end - begin) if end > begin else 0.5
    return _clamped(width, fixed + width * (1 - fraction), first, last)


def pan(current: StepRange | None, first: float, last: float, fraction: float) -> StepRange | None:
    """Return the range moved by a fraction of its width; one moved to the newest step follows it from then on."""
    if current is None:
        return None
    _, end = _current_bounds(current, first, last)
    if fraction > 0 and end + current.width * fraction >= last:
        return StepRange(current.width)
    return _clamped(current.width, end + current.width * fraction, first, last)


def scroll_to(current: StepRange | None, first: float, last: float, step: float) -> StepRange | None:
    """Return the range moved by the least that brings ``step`` into view."""
    if current is None:
        return None
    begin, end = current.bounds(first, last)
    if begin <= step <= end:
        return current
    return _clamped(current.width, step if step > end else step + current.width, first, last)


def _current_bounds(current: StepRange | None, first: float, last: float) -> tuple[float, float]:
    if current is None:
        return first, last
    return current.bounds(first, last) if current.end is not None else (last - current.width, last)


def _clamped(width: float, end: float, first: float, last: float) -> StepRange:
    width = min(width, last - first)
    return StepRange(width, min(max(end, first + width), last))
