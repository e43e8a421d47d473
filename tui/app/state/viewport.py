"""Holds what the charts of a run show: the visible steps, the best data known for them, and the cursor.

All charts of a run share one viewport and one x axis: steps, tokens or time. The visible range and the cursor are
steps, whatever the axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from engine.events.marks import Mark
from engine.events.metrics import BY_STEP
from engine.events.series import Bucket, Point, Series
from engine.events.types import Event, Start, Step
from tui.app.state import raster
from tui.app.state import step_range as step_ranges
from tui.app.state.run_view import RunView, add_step
from tui.app.state.step_range import StepRange
from tui.app.state.x_axis import STEP, TIME, TOKENS, Anchors, Converted, interpolate, make_anchors

ENOUGH_POINTS = 600  # visible points beyond which more make no difference: two per column of the widest chart
_SAMPLED = ("ram_used", "rss")  # measured on every machine
_MARGIN = 2000  # steps read beyond either end of the visible range, so that panning needs no new read


class DetailRequest(NamedTuple):
    """Steps to read again from the log, because the known buckets are too coarse.

    ``until`` None means up to the newest step.
    """

    since: float
    until: float | None

    def covers(self, begin: float, end: float) -> bool:
        return self.since <= begin and (self.until is None or end <= self.until)


class Viewport:
    def __init__(self, view: RunView) -> None:
        self.view = view
        self.step_range: StepRange | None = None  # None: all steps
        self.cursor: int | None = None
        self.chosen_axis = STEP
        self._converted: dict[str, Converted] = {}
        self._anchors: tuple[object, Anchors] = None, Anchors([], [], [])
        self._detail: dict[str, Series] = {}
        self._request: DetailRequest | None = None
        self._requested_width = 0.0
        self._times: tuple[tuple[float, float], tuple[float, float]] | None = None  # visible steps, their times

    # The visible range

    def measured_steps(self) -> tuple[float, float] | None:
        """Return the first and the last measured step."""
        ends = self.view.series["loss"].ends()
        return None if ends is None else (float(ends[0]), float(ends[1]))

    def visible_steps(self) -> tuple[float, float] | None:
        """Return the first and the last visible step; None if all steps are visible."""
        measured = self.measured_steps()
        return None if self.step_range is None or measured is None else self.step_range.bounds(*measured)

    def visible_times(self) -> tuple[float, float] | None:
        """Return the times of the visible steps, in unix seconds; None if all steps are visible."""
        steps = self.visible_steps()
        if steps is None:
            return None
        if self._times is None or self._times[0] != steps or self._times[1][1] < self._newest_sample():
            begin, end = (self.time_of(step) for step in steps)
            if begin is None or end is None:
                return None
            # Computed once per range: the speed changes with every step, and each change would redraw the charts.
            end = max(end, begin + 1.0)
            if (newest := self._newest_sample()) > end:  # no step for a long time
                end = newest + (newest - begin) / 5
            self._times = steps, (begin, end)
        return self._times[1]

    def _newest_sample(self) -> float:
        """Return the time of the newest telemetry sample if the viewport follows the run, else 0."""
        points = self.view.series["ram_used"].points
        return points[-1][0] if points and self.follows_newest() else 0.0

    def follows_newest(self) -> bool:
        return self.step_range is not None and self.step_range.end is None

    def zoom(self, factor: float, at: float | None = None) -> None:
        """Zoom in (``factor`` < 1) or out around step ``at``, else the cursor, else the newest visible step."""
        if (measured := self.measured_steps()) is not None:
            at = self.cursor if at is None else at
            self.step_range = step_ranges.zoom(self.step_range, *measured, factor, None if at is None else float(at))

    def pan(self, fraction: float) -> None:
        """Move by a fraction of the visible width."""
        if (measured := self.measured_steps()) is not None:
            self.step_range = step_ranges.pan(self.step_range, *measured, fraction)

    # The x axis

    @property
    def axis(self) -> str:
        """The axis of all charts: the chosen one, as far as steps and tokens are known yet."""
        if self.measured_steps() is None:
            return TIME
        return STEP if self.chosen_axis == TOKENS and not self.view.series[TOKENS].x else self.chosen_axis

    def _make_anchors(self) -> Anchors:
        """Return the measured steps with their tokens and times; made again only after a step."""
        times, tokens = self.points("t"), self.view.series[TOKENS].points
        key = len(times), times[-1] if times else None, len(tokens)
        if self._anchors[0] != key:
            samples = [points[0][0] for name in _SAMPLED if (points := self.view.series[name].points)]
            first = min(samples, default=None)
            self._anchors = key, make_anchors(times, tokens, first)
        return self._anchors[1]

    def drawn(self, name: str) -> Sequence[Point]:
        """Return the points of a series on the x axis."""
        return self.on_axis(name, self.points(name), STEP if name in BY_STEP else TIME)

    def on_axis(self, name: str, points: Sequence[Point], own: str) -> Sequence[Point]:
        """Return ``points``, whose x are those of the axis ``own``, on the x axis; ``name`` is unique to them."""
        if own == (axis := self.axis) or not (anchors := self._make_anchors()).step:
            return points
        converted = self._converted.setdefault(name, Converted())
        settings = axis, self.view.attempt, anchors.step[0], self.view.series["t"].width
        return converted.update(points, anchors.of(own), anchors.of(axis), settings)

    def x_of(self, step: float) -> float:
        """Return the x of a step."""
        if (axis := self.axis) == STEP or not (anchors := self._make_anchors()).step:
            return step
        return interpolate(anchors.step, anchors.of(axis), step)

    def step_at(self, x: float) -> float:
        """Return the step at ``x``."""
        if (axis := self.axis) == STEP or not (anchors := self._make_anchors()).step:
            return x
        return interpolate(anchors.of(axis), anchors.step, x)

    def visible_x(self) -> tuple[float, float] | None:
        """Return the first and last visible x; None if everything is visible."""
        if self.axis == TIME:
            return self.visible_times()
        steps = self.visible_steps()
        return None if steps is None else (self.x_of(steps[0]), self.x_of(steps[1]))

    def extent(self) -> tuple[float, float] | None:
        """Return the first and the last x of everything that is known; None while nothing is."""
        measured = self.measured_steps()
        if measured is not None and self.axis != TIME:
            return self.x_of(measured[0]), self.x_of(measured[1])
        ends = [] if measured is None else [self.x_of(step) for step in measured]
        for name in _SAMPLED:
            if points := self.view.series[name].points:
                ends += [points[0][0], points[-1][0]]
        return (min(ends), max(ends)) if ends else None

    # Steps and times

    def time_of(self, step: float) -> float | None:
        """Return when ``step`` ended, interpolated between its neighbours."""
        points = self.points("t", around=step)
        return _interpolate([(p[0], p[3]) for p in _neighbours(points, step)], step)

    # The points to draw

    def points(self, name: str, around: float | None = None) -> Sequence[Point]:
        """Return a series with the finest data known for the visible range, or for the step ``around``."""
        coarse = self.view.series[name].points
        fine = self._detail[name].points if name in self._detail else ()
        if not fine:
            return coarse
        if around is not None:
            return fine if fine[0][0] <= around <= fine[-1][0] else coarse
        visible = self.visible_steps() if name in BY_STEP else self.visible_times()
        if visible is None or not coarse or fine[0][0] > max(visible[0], coarse[0][0]):
            return coarse
        if fine[-1][0] < min(visible[1], coarse[-1][0]):
            return coarse
        return fine if _count(fine, visible) >= _count(coarse, visible) else coarse

    def detail_request(self) -> DetailRequest | None:
        """Return what to read again for the visible range; None if nothing is missing or it was requested already."""
        visible, measured = self.visible_steps(), self.measured_steps()
        if visible is None or measured is None:
            return None
        begin, end = max(visible[0], measured[0]), min(visible[1], measured[1])
        if _count(self.points("loss"), visible) >= 0.9 * min(end - begin, ENOUGH_POINTS):
            return None
        width = end - begin
        if self._request is not None and self._request.covers(begin, end) and width > self._requested_width / 1.9:
            return None  # the answer is on its way, or cannot be finer
        margin = min(width / 2, _MARGIN)
        self._requested_width = width
        # A range that reaches the newest step grows with every new step.
        until = None if end >= measured[1] else end + margin
        self._request = DetailRequest(max(begin - margin, 0.0), until)
        return self._request

    def load_detail(self, request: DetailRequest, series: Mapping[str, Sequence[Bucket]] | None) -> None:
        """Load the answer to a request; None if the steps are too many to read. An outdated answer is dropped."""
        if series is None or request != self._request:
            return
        self._detail = {}
        for name, buckets in series.items():
            fine = self._detail[name] = Series(buckets)
            if name in BY_STEP and self._grows():
                coarse = self.view.series[name].points
                for x, _, mean, _ in coarse[_first_after(coarse, fine) :]:
                    fine.add(x, mean, mean)

    def apply(self, event: Event) -> None:
        """Add a new event to the detail, so that a range up to the newest step stays fine."""
        if isinstance(event, Start):
            self._detail, self._request = {}, None
        elif isinstance(event, Step) and self._grows():
            add_step(self._detail, event)

    def _grows(self) -> bool:
        return self._request is not None and self._request.until is None

    # The cursor

    def set_cursor(self, step: float | None) -> None:
        """Put the cursor on the nearest measured step and bring it into view; None removes it."""
        measured = self.measured_steps()
        if step is None or measured is None:
            self.cursor = None
            return
        self.cursor = int(min(max(round(step), measured[0]), measured[1]))
        self.step_range = step_ranges.scroll_to(self.step_range, *measured, self.cursor)

    def move_cursor(self, columns: int, width: int) -> None:
        """Move the cursor by columns of a chart that is ``width`` columns wide."""
        measured = self.measured_steps()
        if self.cursor is not None and measured is not None:
            begin, end = self.visible_steps() or measured
            self.set_cursor(self.cursor + columns * max(round((end - begin) / width), 1))

    def bucket_at_cursor(self, name: str) -> Point | None:
        """Return the bucket of a series at the cursor; None without a cursor or a bucket."""
        if self.cursor is None:
            return None
        points = self.points(name)
        if name in BY_STEP:
            return raster.bucket_at(points, self.cursor)
        time = self.time_of(self.cursor)
        return None if time is None else raster.bucket_at(points, time)

    def step_of(self, name: str, bucket: Point) -> float | None:
        """Return the step of what ``bucket_at_cursor`` found: the cursor's, or that of a single value that was measured
        later, such as the next validation."""
        x, low, _, high = bucket
        return x if name in BY_STEP and low == high else self.cursor

    def marks_at_cursor(self, width: int) -> list[Mark]:
        """Return the events in the cursor's column, of ``width`` columns."""
        measured = self.measured_steps()
        if self.cursor is None or measured is None:
            return []
        begin, end = self.visible_steps() or measured
        half_column = (end - begin) / width / 2
        return [mark for mark in self.view.marks.to_list() if abs(mark.step - self.cursor) <= half_column]


def _count(points: Sequence[Point], bounds: tuple[float, float]) -> int:
    return len(range(len(points))[raster.slice_in_range(points, *bounds)])


def _neighbours(points: Sequence[Point], x: float) -> Sequence[Point]:
    """Return the two points around ``x``, or the two nearest to it."""
    after = raster.slice_in_range(points, x, x).start
    first = min(max(after - 1, 0), max(len(points) - 2, 0))
    return points[first : first + 2]


def _first_after(points: Sequence[Point], series: Series) -> int:
    """Return the index of the first of ``points`` after the end of ``series``."""
    if not series.x:
        return len(points)
    return int(raster.slice_in_range(points, float("-inf"), series.x[-1]).stop)


def _interpolate(pairs: Sequence[tuple[float, float | None]], x: float) -> float | None:
    """Return y at ``x`` on the line through the first and the last pair (x, y)."""
    known = [(a, b) for a, b in pairs if b is not None]
    if not known:
        return None
    (x0, y0), (x1, y1) = known[0], known[-1]
    return y0 if x1 == x0 else y0 + (y1 - y0) * (x - x0) / (x1 - x0)
