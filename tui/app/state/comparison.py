"""Reads runs for comparison and computes their values by step, tokens or time."""

from __future__ import annotations

import asyncio
import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

from engine.events.metrics import METRICS
from engine.events.metrics import TIME as TIME_SERIES
from engine.events.phases import STARTING, has_ended, is_active
from engine.events.series import CAPACITY, Bucket, Point, Series
from engine.events.status import Summary
from engine.runs.client import RunClient
from profiles.errors import UserError
from tui.app.state.data_read import data_read
from tui.app.state.x_axis import STEP, TIME, TOKENS, interpolate

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MAX_RUNS = len(LETTERS)
REQUIRED_SERIES = ("loss", "val_loss", "tok_s", "t", "tokens")  # legend and axes need these, whatever is drawn
_AXIS_SERIES = {TOKENS: "tokens", TIME: "t"}
_GAP = float("nan")


def check_run_count(count: int) -> None:
    """Raise ``UserError`` if there are more runs than letters."""
    if count > MAX_RUNS:
        raise UserError(f"compare: {count} runs; at most {MAX_RUNS}, one per letter: name fewer")


@dataclass(frozen=True, slots=True)
class RunUpdate:
    """A run's summary, and parts (buckets by series, ``since``): they replace all buckets from ``since`` on.

    ``data`` is what ``data_read`` returns of the run.
    """

    summary: Summary
    parts: tuple[tuple[dict[str, list[Bucket]], float | None], ...] = ()
    data: dict[str, str] = field(default_factory=dict)


class RunReader:
    """Reads one run: an ended run once, an active run incrementally."""

    def __init__(self, run_dir: RunDir) -> None:
        self._run = run_dir
        self._client = RunClient(run_dir)
        self._known: set[str] = set()
        self._last = 0.0  # step
        self._room = 0  # buckets that can be added before a series of the run's history halves
        self._attempt: int | None = None
        self._data: dict[str, str] = {}
        self._read_to_end = False
        self._ended = False

    async def poll(self, names: Iterable[str]) -> RunUpdate | None:
        """Return what is new in the series ``names``; None if the run has ended and was read. Raises ``UserError``."""
        new = [name for name in names if name not in self._known]
        if self._ended and not new:
            return None
        summary = await asyncio.to_thread(self._run.summary)
        if not self._run.path.is_dir():
            raise UserError(f"{self._run.id}: was removed")
        attempt, step = summary.attempt, summary.step or 0
        # A restart repeats steps. A series that has halved has other buckets.
        if attempt != self._attempt or step < self._last or self._room <= 0:
            self._known, self._room, self._read_to_end, self._last = set(), CAPACITY, False, 0.0
            self._attempt, self._data, new = attempt, {}, list(names)
        self._data = self._data or await asyncio.to_thread(data_read, self._run)
        parts: list[tuple[dict[str, list[Bucket]], float | None]] = []
        if self._known and not self._read_to_end:
            parts.append(await self._read(sorted(self._known), self._last))
        if new:
            parts.append(await self._read(new, None))
            self._known.update(new)
        self._last = max((b[-1][0] for series, _ in parts for b in series.values() if b), default=self._last)
        for series, since in parts:
            longest = max(map(len, series.values()), default=0)
            # The first of some new buckets replaces the last one known.
            self._room = min(self._room, CAPACITY - longest) if since is None else self._room - max(longest - 1, 0)
        # The summary was read before the series, and nothing is written after the end.
        self._read_to_end = not is_active(summary.phase)
        self._ended = has_ended(summary.phase)
        return RunUpdate(summary, tuple(parts), self._data)

    async def _read(self, names: list[str], since: float | None) -> tuple[dict[str, list[Bucket]], float | None]:
        answer = await self._client.history(names, CAPACITY, since)
        return answer.series, since


class ComparedRun:
    """One of the compared runs, labelled with a letter."""

    def __init__(self, letter: str, id: str) -> None:
        self.letter = letter
        self.summary = Summary(id=id, phase=STARTING)  # until it is read
        self.hidden = False
        self.data: dict[str, str] = {}
        self.series: dict[str, Series] = {}
        self._values: dict[str, array[float]] = {}
        self._points: dict[tuple[str, str, int], list[Point]] = {}
        self._x_values: dict[tuple[str, str], array[float]] = {}

    @property
    def name(self) -> str:
        return self.summary.name or self.summary.id

    def apply(self, update: RunUpdate) -> None:
        self.summary, self.data = update.summary, update.data
        for series, since in update.parts:
            for name, buckets in series.items():
                known = self.series.setdefault(name, Series())
                known.drop_from(-math.inf if since is None else since)
                known.append(buckets)
        if any(buckets for series, _ in update.parts for buckets in series.values()):
            self._values.clear()
            self._points.clear()
            self._x_values.clear()

    def lowest(self, name: str) -> float | None:
        """Return the lowest value of a single step."""
        return self.series[name].lowest() if name in self.series else None

    def mean(self, name: str) -> float | None:
        """Return the mean over all steps."""
        return self.series[name].mean() if name in self.series else None

    def values(self, name: str) -> array[float]:
        """Return the values of a series' buckets; NaN where nothing was measured."""
        if name not in self._values:
            downsampled = "last" if name == TIME_SERIES else METRICS[name].downsampled
            self._values[name] = self.series[name].values(downsampled) if name in self.series else array("d")
        return self._values[name]

    def x_values(self, name: str, axis: str) -> array[float]:
        """Return the x of a series' buckets: steps, tokens, or seconds since the first step; NaN if unknown."""
        key = (name, axis)
        if key not in self._x_values:
            self._x_values[key] = self._compute_x(self.series.get(name) or Series(), axis)
        return self._x_values[key]

    def _compute_x(self, series: Series, axis: str) -> array[float]:
        if axis == STEP:
            return series.x
        scale = self.series.get(_AXIS_SERIES[axis])
        if scale is None or (first := scale.lowest()) is None:
            return array("d", [_GAP]) * len(series)
        zero = first if axis == TIME else 0.0
        values = self.values(_AXIS_SERIES[axis])
        ascending = array("d", accumulate((v - zero for v in values), _maximum))  # a clock may have been set back
        if scale.x == series.x:
            return ascending
        return array("d", (max(interpolate(scale.x, ascending, x), 0.0) for x in series.x))

    def last_x(self, name: str, axis: str) -> float | None:
        """Return the last x at which a series has a value."""
        xs, values = self.x_values(name, axis), self.values(name)
        return next((x for x, v in zip(reversed(xs), reversed(values), strict=True) if x == x and v == v), None)

    @property
    def tokens(self) -> float | None:
        """The tokens up to the step that the run is at: a restart has dropped later ones, or will."""
        step, last = self.summary.step, self.last_x("loss", TOKENS)
        at = None if step is None else self.value_at("tokens", STEP, step)
        return last if at is None else at

    def _first_x(self, name: str, axis: str) -> float:
        """Return the x of the first entry of a series that has values: its first bucket has the x of its last entry."""
        xs, entries = self.x_values(name, axis), self.series[name].entries
        known = next(i for i, x in enumerate(xs) if x == x)
        behind = known + 1
        if entries[known] == 1 or behind == len(xs):
            return xs[known]
        return xs[known] - (xs[behind] - xs[known]) * (entries[known] - 1) / entries[behind]

    def x_range(self, name: str, axis: str) -> tuple[float, float] | None:
        """Return the first and the last known x of a series; None if it has none."""
        known = [x for x in self.x_values(name, axis) if x == x]
        return (known[0], known[-1]) if known else None

    def last(self, name: str) -> float | None:
        """Return the newest value."""
        return self.series[name].newest if name in self.series else None

    def value_at(self, name: str, axis: str, x: float) -> float | None:
        """Return the value of a series at ``x``, interpolated between its neighbours; None before its first, after its
        last."""
        last = self.last_x(name, axis)
        if last is None or not self._first_x(name, axis) <= x <= last:
            return None
        value = interpolate(self.x_values(name, axis), self.values(name), x)
        return value if value == value else None

    def points(self, name: str, axis: str, count: int) -> list[Point]:
        """Return the means of a series, downsampled to about ``count`` points for a chart.

        Redrawing ten runs of 4096 buckets would take too long, and ten bands of extremes would hide each other.
        """
        key = (name, axis, count)
        if key not in self._points:
            self._points = {old: points for old, points in self._points.items() if old[:2] != key[:2]}
            self._points[key] = _downsample(self.x_values(name, axis), self.values(name), count)
        return self._points[key]


def last_common_x(first: ComparedRun, other: ComparedRun, name: str, axis: str) -> float | None:
    """Return the last x that both runs have reached."""
    last = [run.last_x(name, axis) for run in (first, other)]
    return min((x for x in last if x is not None), default=None) if None not in last else None


def difference(baseline: ComparedRun, other: ComparedRun, name: str, axis: str) -> float | None:
    """Return ``other`` minus ``baseline`` at the last x that both have reached."""
    x = last_common_x(baseline, other, name, axis)
    if x is None:
        return None
    a, b = baseline.value_at(name, axis, x), other.value_at(name, axis, x)
    return None if a is None or b is None else b - a


def _maximum(a: float, b: float) -> float:
    """Return the larger of two values; ``b`` if either is NaN."""
    return a if a > b else b


def _downsample(xs: Sequence[float], values: Sequence[float], count: int) -> list[Point]:
    """Return the means of groups of neighbours, each at the x of the last; a group without x is left out."""
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
        partial = sum(known) / len(known) if known else None
        points.append((x, partial, partial, partial))
    return points
