"""How a person looks at a run: the part of its steps in view, as finely as it is known, and the step of the cursor.

All charts of a run look through one lens. Those over time show the time in which the steps in view were done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tui.app.state import raster
from tui.app.state import step_range as step_ranges
from tui.app.state.chart_series import ChartSeries
from tui.app.state.raster import Point
from tui.app.state.run_view import STEP_SERIES, RunView
from tui.app.state.step_range import StepRange

ENOUGH_POINTS = 600  # points in view that are as good as all of them: two a column of the widest chart
_ROUND = 2000  # steps read beyond either side of the window, so that it can be moved


class DetailRequest(NamedTuple):
    """A part of the steps that is to be read again, because what is known of it is too coarse.

    Without ``until`` it goes on to the newest step.
    """

    since: float
    until: float | None

    def covers(self, begin: float, end: float) -> bool:
        return self.since <= begin and (self.until is None or end <= self.until)


class Viewport:
    def __init__(self, view: RunView) -> None:
        self.view = view
        self.step_range: StepRange | None = None
        self.cursor: int | None = None
        self._detail: dict[str, ChartSeries] = {}
        self._asked: DetailRequest | None = None
        self._asked_width = 0.0
        self._timed: tuple[tuple[float, float], tuple[float, float]] | None = None  # steps in view, their times

    # What is in view

    def measured_steps(self) -> tuple[float, float] | None:
        """The first and the last step that were measured."""
        covered = self.view.series["loss"].coverage()
        return None if covered is None else (float(covered[0]), float(covered[1]))

    def visible_steps(self) -> tuple[float, float] | None:
        """From which step to which is in view; None where it is all of them."""
        extent = self.measured_steps()
        return None if self.step_range is None or extent is None else self.step_range.bounds(*extent)

    def visible_times(self) -> tuple[float, float] | None:
        """The same in unix seconds."""
        steps = self.visible_steps()
        if steps is None:
            return None
        if self._timed is None or self._timed[0] != steps or self._timed[1][1] < self._newest():
            begin, end = (self.time_of(step) for step in steps)
            if begin is None or end is None:
                return None
            # Once for each window: the pace changes with every step, and charts would be drawn anew with it.
            end = max(end, begin + 1.0)
            if (newest := self._newest()) > end:  # no step for long
                end = newest + (newest - begin) / 5
            self._timed = steps, (begin, end)
        return self._timed[1]

    def _newest(self) -> float:
        """When the machine was looked at last."""
        points = self.view.series["ram_used"].points
        return points[-1][0] if points and self.follows_newest() else 0.0

    def follows_newest(self) -> bool:
        return self.step_range is not None and self.step_range.end is None

    def zoom(self, factor: float, at: float | None = None) -> None:
        """Look closer (``factor`` < 1) or wider, at step ``at``, else at the cursor, else at the newest in view."""
        if (extent := self.measured_steps()) is not None:
            at = self.cursor if at is None else at
            self.step_range = step_ranges.zoom(self.step_range, *extent, factor, None if at is None else float(at))

    def pan(self, share: float) -> None:
        if (extent := self.measured_steps()) is not None:
            self.step_range = step_ranges.pan(self.step_range, *extent, share)

    # Steps and times

    def time_of(self, step: float) -> float | None:
        """When ``step`` was done, or would have been at the pace of its neighbours."""
        points = self.points("t", around=step)
        return _between([(p[0], p[3]) for p in _beside(points, step)], step)

    def step_of(self, time: float) -> float | None:
        """Which step was done at ``time``."""
        points = [(p[3], p[0]) for p in self.points("t") if p[3] is not None]
        behind = next((i for i, (t, _) in enumerate(points) if t >= time), len(points))
        first = min(max(behind - 1, 0), max(len(points) - 2, 0))
        return _between(points[first : first + 2], time)

    # The points that are drawn

    def points(self, name: str, around: float | None = None) -> Sequence[Point]:
        """A series as finely as it is known in view (or around one step)."""
        whole = self.view.series[name].points
        fine = self._detail[name].points if name in self._detail else ()
        if not fine:
            return whole
        if around is not None:
            return fine if fine[0][0] <= around <= fine[-1][0] else whole
        seen = self.visible_steps() if name in STEP_SERIES else self.visible_times()
        if seen is None or not whole or fine[0][0] > max(seen[0], whole[0][0]):
            return whole
        if fine[-1][0] < min(seen[1], whole[-1][0]):
            return whole
        return fine if _count(fine, seen) >= _count(whole, seen) else whole

    def detail_request(self) -> DetailRequest | None:
        """What should be read again for what is in view, if anything that was not asked for already."""
        seen, extent = self.visible_steps(), self.measured_steps()
        if seen is None or extent is None:
            return None
        begin, end = max(seen[0], extent[0]), min(seen[1], extent[1])
        if _count(self.points("loss"), seen) >= 0.9 * min(end - begin, ENOUGH_POINTS):
            return None
        width = end - begin
        if self._asked is not None and self._asked.covers(begin, end) and width > self._asked_width / 1.9:
            return None  # it cannot be known better, or is on its way
        room = min(width / 2, _ROUND)
        self._asked_width = width
        # A part that reaches the newest step goes on with every step that comes.
        until = None if end >= extent[1] else end + room
        self._asked = DetailRequest(max(begin - room, 0.0), until)
        return self._asked

    def load_detail(self, wanted: DetailRequest, series: Mapping[str, Any] | None) -> None:
        """What was wanted; None where it is too long to be read."""
        if series is None or wanted != self._asked:
            return
        self._detail = {}
        for name, buckets in series.items():
            fine = self._detail[name] = ChartSeries()
            fine.load(buckets)
            if name in STEP_SERIES and self._live():
                for point in self.view.series[name].points[_behind(self.view.series[name].points, fine) :]:
                    fine.add(point[0], point[2])

    def apply(self, record: dict[str, Any]) -> None:
        """One more record; what is in view up to the newest step stays fine."""
        kind = record["kind"]
        if kind == "start":
            self._detail, self._asked = {}, None
        elif kind == "step" and self._live():
            for name, series in self._detail.items():
                if name in STEP_SERIES and name in record:
                    series.add(record["step"], record[name])

    def _live(self) -> bool:
        return self._asked is not None and self._asked.until is None

    # The cursor

    def set_cursor(self, step: float | None) -> None:
        """Put the cursor on a step that was measured, in view; None takes it away."""
        extent = self.measured_steps()
        if step is None or extent is None:
            self.cursor = None
            return
        self.cursor = int(min(max(round(step), extent[0]), extent[1]))
        self.step_range = step_ranges.scroll_to(self.step_range, *extent, self.cursor)

    def move_cursor(self, columns: int, across: int) -> None:
        """Move the cursor by columns of a chart that is ``across`` of them wide."""
        extent = self.measured_steps()
        if self.cursor is not None and extent is not None:
            begin, end = self.visible_steps() or extent
            self.set_cursor(self.cursor + columns * max(round((end - begin) / across), 1))

    def bucket_at_cursor(self, name: str) -> Point | None:
        """The bucket of a series that holds the cursor; None without a cursor or a bucket."""
        if self.cursor is None:
            return None
        points = self.points(name)
        if name in STEP_SERIES:
            return raster.bucket_at(points, self.cursor)
        time = self.time_of(self.cursor)
        return None if time is None else raster.bucket_at(points, time)

    def marks_at_cursor(self, across: int) -> list[dict[str, Any]]:
        """What happened in the cursor's column, of ``across`` in view."""
        extent = self.measured_steps()
        if self.cursor is None or extent is None:
            return []
        begin, end = self.visible_steps() or extent
        near = (end - begin) / across / 2
        return [mark for mark in self.view.marks.to_list() if abs(mark["step"] - self.cursor) <= near]


def _count(points: Sequence[Point], seen: tuple[float, float]) -> int:
    return len(range(len(points))[raster.slice_in_range(points, *seen)])


def _beside(points: Sequence[Point], x: float) -> Sequence[Point]:
    """The two points around ``x``, or the two nearest to it."""
    behind = raster.slice_in_range(points, x, x).start
    first = min(max(behind - 1, 0), max(len(points) - 2, 0))
    return points[first : first + 2]


def _behind(points: Sequence[Point], series: ChartSeries) -> int:
    """The first of ``points`` behind everything in ``series``."""
    if not series.points:
        return len(points)
    return sum(1 for _ in points[raster.slice_in_range(points, float("-inf"), series.points[-1][0])])


def _between(pairs: Sequence[tuple[float, float | None]], x: float) -> float | None:
    """The line through two pairs (x, y), at ``x``."""
    known = [(a, b) for a, b in pairs if b is not None]
    if not known:
        return None
    (x0, y0), (x1, y1) = known[0], known[-1]
    return y0 if x1 == x0 else y0 + (y1 - y0) * (x - x0) / (x1 - x0)
