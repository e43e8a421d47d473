"""Converts the points of a run to the x axis that its charts share: steps, tokens or time.

Metrics of a step are known by step, those of the machine by time. The steps measured so far say which time and how
many tokens each step is, and lie close enough to each other to interpolate between them.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import NamedTuple

from engine.events.series import Point

STEP, TOKENS, TIME = "step", "tokens", "time"
AXES = (STEP, TOKENS, TIME)


class Anchors(NamedTuple):
    """Measured steps with their tokens and unix times, each rising."""

    step: list[float]
    tokens: list[float]
    time: list[float]

    def of(self, axis: str) -> list[float]:
        return {STEP: self.step, TOKENS: self.tokens, TIME: self.time}[axis]


def make_anchors(times: Sequence[Point], tokens: Sequence[Point], started: float | None) -> Anchors:
    """Return the anchors from the series of the time and of the tokens of steps.

    ``started`` is the time at which the first step began, if known. Samples after the newest step belong to the step
    that is being done, so the anchors end one step later.
    """
    known = [(step, newest) for step, _, _, newest in times if newest is not None]
    if not known:
        return Anchors([], [], [])
    (first, first_end), (last, last_end) = known[0], known[-1]
    if started is not None and started < first_end:
        known.insert(0, (max(first - 1, 0.0), started))
    seconds = (last_end - known[0][1]) / max(last - known[0][0], 1)
    known.append((last + 1, last_end + max(seconds, 1.0)))
    steps, clock = [step for step, _ in known], [known[0][1]]
    for _, time in known[1:]:
        clock.append(max(time, clock[-1]))  # a clock may have been set back
    measured = [(step, most) for step, _, _, most in tokens if most is not None]
    if not measured:
        return Anchors(steps, [], clock)
    by_step = [(0.0, 0.0), *measured]
    rate = by_step[-1][1] / max(by_step[-1][0], 1)
    by_step.append((last + 1, by_step[-1][1] + rate * max(last + 1 - by_step[-1][0], 0)))
    xs, values = [step for step, _ in by_step], [value for _, value in by_step]
    return Anchors(steps, [interpolate(xs, values, step) for step in steps], clock)


def interpolate(xs: Sequence[float], ys: Sequence[float], x: float) -> float:
    """Return y at ``x`` on the line through the points (``xs`` rising); beyond the ends, that of the end."""
    i = bisect.bisect_left(xs, x)
    if i == len(xs):
        return ys[-1]
    if i == 0 or xs[i] == x:
        return ys[i]
    return ys[i - 1] + (ys[i] - ys[i - 1]) * (x - xs[i - 1]) / (xs[i] - xs[i - 1])


class Converted:
    """A series on another axis. Only points that are new, or that may have moved, are converted again."""

    def __init__(self) -> None:
        self._settings: object = None
        self._source: list[Point] = []
        self._points: list[Point] = []
        self._settled = float("-inf")  # points before this x of the source lay between two measured steps

    def update(
        self, points: Sequence[Point], xs: Sequence[float], ys: Sequence[float], settings: object
    ) -> list[Point]:
        """Return ``points`` with each x, one of ``xs``, replaced by that of ``ys``.

        ``settings`` says of what the anchors are; once it changes, every point is converted again.
        """
        keep = min(len(self._points), len(points)) if settings == self._settings else 0
        while keep and (self._source[keep - 1] is not points[keep - 1] or points[keep - 1][0] >= self._settled):
            keep -= 1
        new = points[keep:]
        self._source[keep:] = new
        self._points[keep:] = [(interpolate(xs, ys, x), low, mean, high) for x, low, mean, high in new]
        self._settings, self._settled = settings, xs[-2] if len(xs) > 1 else float("-inf")
        return self._points
