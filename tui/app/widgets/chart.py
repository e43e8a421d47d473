"""A braille line chart: a title with live numbers, round axes that move in steps, gaps where nothing was measured.

Where more than one value falls into a column of dots the line is their mean, within a band from lowest to highest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.cells import cell_len
from textual import events
from textual.message import Message

from tui.app.state import raster
from tui.app.state.raster import Axis, Column
from tui.app.widgets import plot
from tui.app.widgets.canvas import Canvas, Row
from tui.app.widgets.plot import Line, Mark
from tui.text import format as fmt
from tui.text.ellipsis import clip

__all__ = ["Chart", "Line", "Mark"]

_LABEL = 6  # cells left of the plot
_TIME_UNITS = (86400.0, 3600.0, 60.0)  # seconds in which a time axis ends round
_NOTE_ROWS = 9  # rows of plot from which on a note below the title is worth one of them


class Chart(Canvas, can_focus=True):
    """Draws ``lines`` over one x axis.

    ``time_axis``: x is unix seconds, labelled as the time since the first point, in a window as the hour; otherwise x
    is a step number.
    ``y_text`` labels a value. ``y_unit`` gives the unit in which the ticks of an axis up to a value are round.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *("chart--title", "chart--title-focus", "chart--note", "chart--axis", "chart--empty", "chart--cursor"),
        *("chart--line", "chart--second", "chart--mark", "chart--band", "chart--limit"),
        *("chart--event", "chart--event-good", "chart--event-warn", "chart--event-bad"),
    }

    class ZoomRequested(Message):
        """The wheel was turned over the plot: ``factor`` < 1 asks for a closer look at ``x``."""

        def __init__(self, chart: Chart, x: float, factor: float) -> None:
            super().__init__()
            self.chart, self.x, self.factor = chart, x, factor

    class PanRequested(Message):
        """The plot was drawn to one side, by a fraction of its width."""

        def __init__(self, chart: Chart, fraction: float) -> None:
            super().__init__()
            self.chart, self.fraction = chart, fraction

    class Clicked(Message):
        """A person clicked at ``x``."""

        def __init__(self, chart: Chart, x: float) -> None:
            super().__init__()
            self.chart, self.x = chart, x

    def __init__(
        self,
        title: str,
        *,
        id: str | None = None,
        time_axis: bool = False,
        y_text: Callable[[float], str] = fmt.axis,
        y_unit: Callable[[float], float] = lambda value: 1.0,
        from_zero: bool = False,
    ) -> None:
        super().__init__(id=id)
        self.titles: Sequence[str] = (title,)
        self.lines: list[Line] = []
        self.time_axis = time_axis
        self.log_axis = False
        self.smoothing = 0.0
        self.x_range: tuple[float, float] | None = None  # what of x is seen; None: all there is
        self.cursor: float | None = None
        self._marks: Sequence[Mark] = ()
        self._notes: Sequence[str] = ()
        self._limit: float | None = None
        self._y_top: float | None = None
        self._x_end: float | None = None
        self._y_text = y_text
        self._y_unit = y_unit
        self._from_zero = from_zero
        self._y: Axis | None = None
        self._y_kind: object = None
        self._x: tuple[float, float] = (0.0, 0.0)
        self._held: tuple[int, bool] | None = None  # where the mouse went down, and whether it has moved since

    def show(
        self,
        titles: Sequence[str],
        lines: list[Line],
        y_top: float | None = None,
        x_end: float | None = None,
        *,
        marks: Sequence[Mark] = (),
        notes: Sequence[str] = (),
        limit: float | None = None,
    ) -> None:
        """Replace what is drawn. Of ``titles``, longest first, the first that fits is shown; of ``notes``, which stand
        below it where there is room, too.

        ``y_top`` is a capacity the y axis reaches up to, ``limit`` a value that is drawn as a dashed line; ``x_end`` is
        where x can get at most.
        """
        self.titles, self.lines, self._y_top, self._x_end = titles, lines, y_top, x_end
        self._marks, self._notes, self._limit = marks, notes, limit
        self.redraw()

    @property
    def dot_columns(self) -> int:
        """Columns of dots across the plot."""
        return max(2 * (self.size.width - _LABEL - 1), 1)

    @property
    def visible_range(self) -> tuple[float, float]:
        """From where to where x is on screen; both 0 before anything was drawn."""
        return self._x

    def draw(self, width: int, height: int) -> list[Row]:
        number = self.id.rpartition("-")[2] if self.id else ""
        style = "chart--title-focus" if self.has_focus else "chart--title"
        title = _fitting(self.titles, width - len(number) - 2) or self.titles[-1]
        rows: list[Row] = [[(clip(f" {number} {title}".ljust(width), width), style)]]
        across, down = width - _LABEL - 1, height - 2
        if down >= _NOTE_ROWS and (note := _fitting(self._notes, width - 2)):
            rows.append([(f"  {note}", "chart--note")])
            down -= 1
        if self._marks and down > 3:
            down -= 1
        if across < 2 or down < 1:
            return rows
        if not self._settle_x():
            return self._nothing(rows, width, down)
        raw = [self._columns(line, line.points, across) for line in self.lines]
        drawn = [
            self._columns(line, raster.smooth(line.points, self.smoothing), across)
            if self.smoothing and not line.mark
            else cols
            for line, cols in zip(self.lines, raw, strict=True)
        ]
        found = raster.value_range(column for cols in raw for column in cols)
        if found is None:
            return self._nothing(rows, width, down)
        axis = self._settle_y(raw, *found, down)
        rows += self._plot(raw, drawn, axis, across, down)
        if self._marks and height - 2 > 3:
            rows.append([(" " * _LABEL + "┊", "chart--axis"), *plot.marks(self._marks, *self._x, across)])
        return [*rows, self._x_row(across)]

    def _columns(self, line: Line, points: Sequence[raster.Point], across: int) -> list[Column | None]:
        if self.x_range is not None and not line.mark:
            points = raster.clip_to_range(points, *self._x)
        return raster.to_columns(points, *self._x, across * 2)

    def _nothing(self, rows: list[Row], width: int, down: int) -> list[Row]:
        said = "nothing measured here" if self.x_range else "nothing measured yet"
        empty: Row = [(said.center(width), "chart--empty")]
        return rows + [[]] * (down // 2) + [empty]

    def _settle_x(self) -> bool:
        """Choose from where to where x is seen; False where nothing was measured."""
        there = [line.points for line in self.lines if line.points]
        if not there:
            return False
        if self.x_range is not None:
            self._x = self.x_range
            return True
        first = min(points[0][0] for points in there)
        last = max(points[-1][0] for points in there)
        if self.time_axis:
            span = max(last - first, 60.0)
            unit = next(unit for unit in _TIME_UNITS if span >= unit)
            self._x = (first, first + raster.nice_ceiling(span / unit) * unit)
        else:
            # Early in a run the axis starts at step 0; a run that resumed far along starts where it did.
            start = 0.0 if first <= last / 4 else first - 1
            end = start + math.ceil(max(raster.nice_ceiling(last - start), 10.0))
            if self._x_end is not None and start < last <= self._x_end:
                end = min(end, self._x_end)
            self._x = (start, end)
        return True

    def _settle_y(self, raw: list[list[Column | None]], low: float, high: float, down: int) -> Axis:
        """Choose the y axis, or keep the one there is."""
        if self.log_axis:
            positive = [v for cols in raw for c in cols if c for v in (c.low, c.mean, c.high) if v > 0]
            low = min(positive, default=1e-3)
            high = max(high, low)
        elif self._from_zero:
            low = min(low, 0.0)
        if self._y_top is not None and not self.log_axis:
            high = max(high, self._y_top)
        # On a short plot every other row is enough for a label.
        count = max(min(2, down), min((down - 1) // 2, 5 if down < 24 else 8))  # one alone tells no scale
        kind = (self.log_axis, count, self._y_top, self.x_range)
        if kind != self._y_kind:
            self._y, self._y_kind = None, kind
        if self.log_axis:
            self._y = raster.stable_axis(self._y, low, high, lambda a, b: raster.log_axis(a, b, count))
        else:
            unit = self._y_unit(high)
            self._y = raster.stable_axis(self._y, low, high, lambda a, b: raster.linear_axis(a, b, count, unit))
        return self._y

    def _plot(
        self,
        raw: list[list[Column | None]],
        drawn: list[list[Column | None]],
        axis: Axis,
        across: int,
        down: int,
    ) -> list[Row]:
        cells = plot.blank(across, down)
        if self._limit is not None:
            plot.level(cells, self._limit, "chart--limit", axis)
        for line, cols in zip(self.lines, raw, strict=True):
            if not line.mark:
                plot.stroke(cells, raster.band_masks(cols, axis, down * 4), "chart--band")
                if self.smoothing:  # what was measured stays to be seen behind the smooth line
                    plot.stroke(cells, raster.line_masks(cols, axis, down * 4), "chart--band")
        for line, cols in zip(self.lines, drawn, strict=True):
            if line.mark:
                plot.points(cells, cols, line.mark, line.style, axis)
            else:
                plot.stroke(cells, raster.line_masks(cols, axis, down * 4), line.style)
        x0, x1 = self._x
        if self.cursor is not None and x0 <= self.cursor <= x1:
            plot.upright(cells, min(int((self.cursor - x0) / (x1 - x0) * across), across - 1), "chart--cursor")
        labels = plot.labels(axis, down, self._y_text)
        return [
            [
                (f"{labels.get(y, ''):>{_LABEL}}"[:_LABEL] + ("┤" if y in labels else "│"), "chart--axis"),
                *plot.joined(row),
            ]
            for y, row in enumerate(cells)
        ]

    def _x_row(self, across: int) -> Row:
        steps, origin = plot.ROUND, 0.0
        if self.time_axis:
            steps = plot.ROUND_TIMES
            # A clock is round in local time; a time since the beginning is counted from there.
            origin = fmt.start_of_day(self._x[0]) if self.x_range is not None else self._since()
        text = plot.x_labels(*self._x, across, steps, origin, self._x_text)
        return [(" " * _LABEL + "└" + text, "chart--axis")]

    def _x_text(self, x: float) -> str:
        x0, x1 = self._x
        if not self.time_axis:
            return fmt.exact(x) if x >= 1e4 and x1 - x0 < x1 / 20 else fmt.axis(round(x))
        if self.x_range is not None:
            return fmt.axis_time(x, x1 - x0)
        since = x - self._since()
        return "0" if since < 1 else fmt.short_duration(since)

    def _since(self) -> float:
        return min(line.points[0][0] for line in self.lines if line.points)

    # The mouse

    def _x_at(self, cell: int) -> float:
        x0, x1 = self._x
        across = max(self.size.width - _LABEL - 1, 1)
        return x0 + (x1 - x0) * min(max((cell - _LABEL - 0.5) / across, 0.0), 1.0)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self._wheel(event, 0.7)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        self._wheel(event, 1 / 0.7)

    def _wheel(self, event: events.MouseEvent, factor: float) -> None:
        event.stop()
        self.post_message(self.ZoomRequested(self, self._x_at(event.x), factor))

    def on_mouse_down(self, event: events.MouseDown) -> None:
        self.capture_mouse()
        self._held = event.x, False

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if self._held is not None and event.x != self._held[0]:
            self.post_message(self.PanRequested(self, (self._held[0] - event.x) * 2 / self.dot_columns))
            self._held = event.x, True

    def on_mouse_up(self, event: events.MouseUp) -> None:
        self.release_mouse()
        held, self._held = self._held, None
        if held is not None and not held[1] and event.x > _LABEL:
            self.post_message(self.Clicked(self, self._x_at(event.x)))

    def on_focus(self, event: events.Focus) -> None:
        self.redraw()

    def on_blur(self, event: events.Blur) -> None:
        self.redraw()


def _fitting(texts: Sequence[str], width: int) -> str:
    """The first that fits; nothing where none does."""
    return next((text for text in texts if cell_len(text) <= width), "")
