"""Which part of a run's steps its charts show: numbers only."""

from __future__ import annotations

import math
from dataclasses import dataclass

MIN_WIDTH = 8.0  # steps
_SHIFTS = 5  # a window that follows moves on by this part of its width: each move redraws a chart


@dataclass(frozen=True, slots=True)
class StepRange:
    """``width`` steps up to ``end``; with ``end`` None the newest ones, whatever comes."""

    width: float
    end: float | None = None

    def bounds(self, low: float, high: float) -> tuple[float, float]:
        """From where to where, of a run whose steps go from ``low`` to ``high``."""
        if self.end is not None:
            return self.end - self.width, self.end
        shift = max(math.ceil(self.width / _SHIFTS), 1)
        end = math.ceil(high / shift) * shift
        return end - self.width, end


def zoom(window: StepRange | None, low: float, high: float, factor: float, at: float | None = None) -> StepRange | None:
    """The window after a closer look (``factor`` < 1) or a wider one; None is all there is.

    What stays in its place is ``at``; without it the newest step where that is in view, else the middle.
    """
    begin, end = _now(window, low, high)
    follows = window is None or window.end is None
    width = max((end - begin) * factor, MIN_WIDTH)
    if width >= high - low:
        return None
    if at is None and follows:
        return StepRange(width)
    pivot = (begin + end) / 2 if at is None else min(max(at, begin), end)
    share = (pivot - begin) / (end - begin) if end > begin else 0.5
    return _within(width, pivot + width * (1 - share), low, high)


def pan(window: StepRange | None, low: float, high: float, share: float) -> StepRange | None:
    """The window moved by a share of its width; at the newest step it follows from there on."""
    if window is None:
        return None
    _, end = _now(window, low, high)
    if share > 0 and end + window.width * share >= high:
        return StepRange(window.width)
    return _within(window.width, end + window.width * share, low, high)


def scroll_to(window: StepRange | None, low: float, high: float, at: float) -> StepRange | None:
    """The window moved as little as needed to show step ``at``."""
    if window is None:
        return None
    begin, end = window.bounds(low, high)
    if begin <= at <= end:
        return window
    return _within(window.width, at if at > end else at + window.width, low, high)


def _now(window: StepRange | None, low: float, high: float) -> tuple[float, float]:
    if window is None:
        return low, high
    begin, end = window.bounds(low, high)
    return (begin, end) if window.end is not None else (high - window.width, high)


def _within(width: float, end: float, low: float, high: float) -> StepRange:
    width = min(width, high - low)
    return StepRange(width, min(max(end, low + width), high))
