"""Runs to be laid over each other: what is read of each, and its values by step, tokens or time."""

from __future__ import annotations

import asyncio
import bisect
import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from engine.events.summary import ENDED, INACTIVE
from engine.runs.client import RunClient
from profiles.errors import UserError

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir
    from tui.app.state.raster import Point

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MOST = len(LETTERS)
STEP, TOKENS, TIME = "step", "tokens", "time"
AXES = (STEP, TOKENS, TIME)
REQUIRED_SERIES = ("loss", "val_loss", "tok_s", "t", "tokens")  # what legend and axes need, whatever is drawn
_AXIS_SERIES = {TOKENS: "tokens", TIME: "t"}
_BUCKETS = 4096  # all that a history holds of a series
_GAP = float("nan")


def check_run_count(count: int) -> None:
    """Raises ``UserError`` where there are more runs than letters."""
    if count > MOST:
        raise UserError(f"compare: {count} runs; {MOST} at most, one a letter: name fewer")


class Curve:
    """One series of one run, by step, in little memory: ``x`` rises, ``value`` is NaN where nothing was measured."""

    def __init__(self) -> None:
        self.x, self.value = array("d"), array("d")
        self.lowest = math.inf  # of single steps

    def apply(self, buckets: Sequence[Sequence[Any]], column: int, since: float | None) -> None:
        """Buckets ``[x, min, mean, max]`` in place of all from ``since`` on (None: of all)."""
        keep = 0 if since is None else bisect.bisect_left(self.x, since)
        del self.x[keep:], self.value[keep:]
        self.x.extend(bucket[0] for bucket in buckets)
        self.value.extend(_GAP if bucket[column] is None else bucket[column] for bucket in buckets)
        lowest = min((b[1] for b in buckets if b[1] is not None), default=math.inf)
        self.lowest = lowest if since is None else min(self.lowest, lowest)

    def last(self) -> float | None:
        """The newest value that is none of the gaps."""
        return next((value for value in reversed(self.value) if value == value), None)

    def mean(self) -> float | None:
        """Of the buckets, all but the last of which are equally wide."""
        known = [value for value in self.value if value == value]
        return sum(known) / len(known) if known else None


@dataclass(frozen=True, slots=True)
class RunUpdate:
    """What was read of a run: its summary, and buckets in place of those from ``since`` on (None: of all)."""

    summary: dict[str, Any]
    parts: tuple[tuple[dict[str, Any], float | None], ...] = ()


class RunReader:
    """Reads one run for whoever compares: an ended one once, of a living one only what has come since."""

    def __init__(self, run_dir: RunDir) -> None:
        self._run = run_dir
        self._link = RunClient(run_dir)
        self._known: set[str] = set()
        self._last = 0.0  # step
        self._added = 0
        self._attempt: int | None = None
        self._over = False
        self._ended = False

    async def poll(self, names: Iterable[str]) -> RunUpdate | None:
        """What is new of the series ``names``; None where nothing can be. Raises ``UserError``."""
        new = [name for name in names if name not in self._known]
        if self._ended and not new:
            return None
        summary = await asyncio.to_thread(self._run.summary)
        if not self._run.path.is_dir():
            raise UserError(f"{self._run.id}: was removed")
        attempt, step = summary["attempt"], summary["step"] or 0
        # A restart repeats steps; and what is added bucket by bucket is now and then read whole, as coarse as it is.
        if attempt != self._attempt or step < self._last or self._added > _BUCKETS:
            self._known, self._added, self._over, self._last = set(), 0, False, 0.0
            self._attempt, new = attempt, list(names)
        parts: list[tuple[dict[str, Any], float | None]] = []
        if self._known and not self._over:
            parts.append(await self._read(sorted(self._known), self._last))
        if new:
            parts.append(await self._read(new, None))
            self._known.update(new)
        self._last = max((b[-1][0] for series, _ in parts for b in series.values() if b), default=self._last)
        self._added += sum(len(b) for series, since in parts for b in series.values() if since is not None)
        # Asked before reading: nothing is written after the end.
        self._over = summary["phase"] in INACTIVE
        self._ended = summary["phase"] in ENDED
        return RunUpdate(summary, tuple(parts))

    async def _read(self, names: list[str], since: float | None) -> tuple[dict[str, Any], float | None]:
        answer = await self._link.history(names, _BUCKETS, since)
        return answer["series"], since


class ComparedRun:
    """One of the runs laid over each other, with the letter it goes by."""

    def __init__(self, letter: str, summary: dict[str, Any]) -> None:
        self.letter = letter
        self.summary = summary
        self.hidden = False
        self.curves: dict[str, Curve] = {}
        self._points: dict[tuple[str, str, int], list[Point]] = {}
        self._x_values: dict[tuple[str, str], array[float]] = {}

    @property
    def name(self) -> str:
        return str(self.summary.get("name") or self.summary.get("id") or "")

    def apply(self, update: RunUpdate) -> None:
        self.summary = update.summary
        for series, since in update.parts:
            for name, buckets in series.items():
                # How far time and tokens had got at a step is what they reached in its bucket.
                column = 3 if name in _AXIS_SERIES.values() else 2
                self.curves.setdefault(name, Curve()).apply(buckets, column, since)
        if any(buckets for series, _ in update.parts for buckets in series.values()):
            self._points.clear()
            self._x_values.clear()

    def lowest(self, name: str) -> float | None:
        """The lowest value of a single step."""
        curve = self.curves.get(name)
        return curve.lowest if curve is not None and math.isfinite(curve.lowest) else None

    def x_values(self, name: str, axis: str) -> array[float]:
        """Where the buckets of a series lie: steps, tokens, or seconds since the first step; NaN where unknown."""
        key = (name, axis)
        if key not in self._x_values:
            self._x_values[key] = self._place(self.curves.get(name) or Curve(), axis)
        return self._x_values[key]

    def _place(self, curve: Curve, axis: str) -> array[float]:
        if axis == STEP:
            return curve.x
        scale = self.curves.get(_AXIS_SERIES[axis])
        if scale is None or scale.last() is None:
            return array("d", [_GAP]) * len(curve.x)
        zero = scale.lowest if axis == TIME else 0.0
        reached = array("d", accumulate((v - zero for v in scale.value), _later))  # a clock may have been set back
        if scale.x == curve.x:
            return reached
        return array("d", (max(_between(scale.x, reached, x), 0.0) for x in curve.x))

    def last_x(self, name: str, axis: str) -> float | None:
        """The last x at which a series has a value."""
        curve, along = self.curves.get(name), self.x_values(name, axis)
        values = curve.value if curve is not None else array("d")
        return next((x for x, v in zip(reversed(along), reversed(values), strict=True) if x == x and v == v), None)

    def value_at(self, name: str, axis: str, x: float) -> float | None:
        """The value of a series at ``x``, between its neighbours where none was measured there."""
        curve = self.curves.get(name)
        if curve is None or not curve.x:
            return None
        value = _between(self.x_values(name, axis), curve.value, x)
        return value if value == value else None

    def points(self, name: str, axis: str, count: int) -> list[Point]:
        """At most about ``count`` points of means: what a chart can show of a series.

        Of 4096 buckets a run a redraw of ten would take too long; and ten bands of extremes hide each other.
        """
        key = (name, axis, count)
        if key not in self._points:
            curve = self.curves.get(name) or Curve()
            self._points = {old: points for old, points in self._points.items() if old[:2] != key[:2]}
            self._points[key] = _thinned(self.x_values(name, axis), curve.value, count)
        return self._points[key]


def last_common_x(first: ComparedRun, other: ComparedRun, name: str, axis: str) -> float | None:
    """The furthest x that both have reached."""
    reached = [run.last_x(name, axis) for run in (first, other)]
    return min((x for x in reached if x is not None), default=None) if None not in reached else None


def difference(first: ComparedRun, other: ComparedRun, name: str, axis: str) -> float | None:
    """How much ``other`` is above ``first`` at the furthest x that both have reached."""
    x = last_common_x(first, other, name, axis)
    if x is None:
        return None
    a, b = first.value_at(name, axis, x), other.value_at(name, axis, x)
    return None if a is None or b is None else b - a


def _later(a: float, b: float) -> float:
    return b if not a > b else a


def _between(xs: Sequence[float], values: Sequence[float], x: float) -> float:
    """The value at ``x``, in a straight line between its neighbours; beyond the ends that of the end."""
    at = bisect.bisect_left(xs, x)
    if at == len(xs):
        return values[-1]
    if at == 0 or xs[at] == x:
        return values[at]
    share = (x - xs[at - 1]) / (xs[at] - xs[at - 1])
    return values[at - 1] + (values[at] - values[at - 1]) * share


def _thinned(xs: Sequence[float], values: Sequence[float], count: int) -> list[Point]:
    group = -(-len(xs) // max(count, 1)) or 1
    points: list[Point] = []
    for begin in range(0, len(xs), group):
        x, part = xs[min(begin + group, len(xs)) - 1], values[begin : begin + group]
        if x != x:
            continue
        total = sum(part)
        if total == total:
            mean = total / len(part)
            points.append((x, mean, mean, mean))
            continue
        known = [value for value in part if value == value]
        mean_ = sum(known) / len(known) if known else None
        points.append((x, mean_, mean_, mean_))
    return points
