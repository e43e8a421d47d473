"""Draws a braille line chart: a title with current values, round axes that change in steps, gaps in the data.

If several values fall into one column of dots, the line is their mean, inside a band from lowest to highest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.cells import cell_len
from textual import events
from textual.message import Message

from engine.events.series import Point
from tui.app.state import raster
from tui.app.state.raster import Axis, Column
from tui.app.state.x_axis import STEP, TIME
from tui.app.widgets import plot
from tui.app.widgets.canvas import Canvas, Row
from tui.app.widgets.plot import Line, Mark
from tui.text import format as fmt
from tui.text.axis_text import tick_labels
from tui.text.ellipsis import clip

__all__ = ["CHART_STYLES", "Chart", "Line", "Mark"]

_LABEL = 6  # cells left of the plot
_TIME_UNITS = (86400.0, 3600.0, 60.0)  # seconds; a time axis ends at a round number of one of these
_UNIT_MIN_ROWS = 4  # shorter plots have no row for the unit
_NOTE_MIN_ROWS = 9  # plots with fewer rows show no note below the title

CHART_STYLES = {
    *("chart--title", "chart--title-focus", "chart--note", "chart--axis", "chart--empty", "chart--cursor"),
    *("chart--line", "chart--second", "chart--mark", "chart--band", "chart--limit"),
    *("chart--event", "chart--event-good", "chart--event-warn", "chart--event-bad"),
}
"""The component classes of whatever a chart is ``styled_by``."""


class Chart(Canvas, can_focus=True):
    """Draws ``lines`` over one x axis, which ``axis`` names: step, tokens or time.

    On a time axis x is unix seconds, labelled as the time since the first point or, with an ``x_range``, as clock time;
    with ``elapsed`` x is seconds since a start.
    """

    class ZoomRequested(Message):
        """The mouse wheel was turned at ``x``; ``factor`` < 1 zooms in."""

        def __init__(self, chart: Chart, x: float, factor: float) -> None:
            super().__init__()
            self.chart, self.x, self.factor = chart, x, factor

    class PanRequested(Message):
        """The plot was dragged by a fraction of its width; positive towards larger x."""

        def __init__(self, chart: Chart, fraction: float) -> None:
            super().__init__()
            self.chart, self.fraction = chart, fraction

    class Clicked(Message):
        """The plot was clicked at ``x``."""

        def __init__(self, chart: Chart, x: float) -> None:
            super().__init__()
            self.chart, self.x = chart, x

    def __init__(
        self,
        title: str,
        *,
        id: str | None = None,
        elapsed: bool = False,
        from_zero: bool = False,
    ) -> None:
        super().__init__(id=id)
        self.titles: Sequence[str] = (title,)
        self.lines: list[Line] = []
        self.axis = STEP
        self.log_axis = False
        self.smoothing = 0.0
        self.x_range: tuple[float, float] | None = None  # the visible x; None: everything
        self.x_extent: tuple[float, float] | None = None  # the first and last x of everything; None: those of the lines
        self.cursor: float | None = None
        self._marks: Sequence[Mark] = ()
        self._notes: Sequence[str] = ()
        self._limit: float | None = None
        self._y_top: float | None = None
        self._x_end: float | None = None
        self._unit, self._scale = "", 1.0
        self._elapsed = elapsed
        self.from_zero = from_zero
        self._y: Axis | None = None
        self._y_settings: object = None
        self._x: tuple[float, float] = (0.0, 0.0)
        self._plotted: tuple[object, list[Row] | None] = None, None  # the last plot, and of what it is
        self._drag: tuple[int, bool] | None = None  # cell of the pressed mouse, and whether it has moved

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
        unit: str = "",
        scale: float = 1.0,
    ) -> None:
        """Replace what is drawn. Of ``titles`` and of ``notes``, longest first, the first that fits is shown.

        ``y_top`` is a capacity that the y axis includes, ``limit`` a value drawn as a dashed line, ``x_end`` the
        largest possible x. ``unit`` is written on the y axis, whose ticks are values divided by ``scale``.
        """
        self.titles, self.lines, self._y_top, self._x_end = titles, lines, y_top, x_end
        self._marks, self._notes, self._limit = marks, notes, limit
        self._unit, self._scale = unit, scale
        self.redraw()

    @property
    def dot_columns(self) -> int:
        """The width of the plot in columns of dots."""
        return max(2 * (self.size.width - _LABEL - 1), 1)

    @property
    def visible_range(self) -> tuple[float, float]:
        """The first and last x on screen; both 0 before anything was drawn."""
        return self._x

    def draw(self, width: int, height: int) -> list[Row]:
        number = self.id.rpartition("-")[2] if self.id else ""
        number = number if number.isdigit() else ""  # only the panes of the first page have a key
        style = "chart--title-focus" if self.has_focus else "chart--title"
        margin = f" {number} " if number else " "
        title = _first_fitting(self.titles, width - len(margin)) or self.titles[-1]
        rows: list[Row] = [[(clip(f"{margin}{title}".ljust(width), width), style)]]
        plot_width, plot_height = width - _LABEL - 1, height - 2
        if plot_height >= _NOTE_MIN_ROWS and (note := _first_fitting(self._notes, width - 2)):
            rows.append([(f"  {note}", "chart--note")])
            plot_height -= 1
        if self._marks and plot_height > 3:
            plot_height -= 1
        if plot_width < 2 or plot_height < 1:
            return rows
        if not self._choose_x() or (plotted := self._plot(plot_width, plot_height)) is None:
            return self._empty(rows, width, plot_height)
        column = self._cursor_column(plot_width)
        rows += (
            plotted if column is None else [plot.cross(row, _LABEL + 1 + column, "chart--cursor") for row in plotted]
        )
        if self._marks and height - 2 > 3:
            rows.append([(" " * _LABEL + "┊", "chart--axis"), *plot.mark_row(self._marks, *self._x, plot_width)])
        return [*rows, self._x_row(plot_width)]

    def _cursor_column(self, plot_width: int) -> int | None:
        x0, x1 = self._x
        if self.cursor is None or not x0 <= self.cursor <= x1:
            return None
        return min(int((self.cursor - x0) / (x1 - x0) * plot_width), plot_width - 1)

    def _plot(self, plot_width: int, plot_height: int) -> list[Row] | None:
        """Return the rows of labels and lines; None if there is no value. Drawn again only if one of them changes.

        So a cursor, a title or the focus costs no more than the rows it is in.
        """
        lines = [line._replace(points=tuple(line.points)) for line in self.lines]  # a series grows in place
        options = self.log_axis, self.smoothing, self.x_range, self._y_top, self._limit, self._unit, self._scale
        shown = plot_width, plot_height, self._x, options, lines
        if shown != self._plotted[0]:
            self._plotted = shown, self._draw_plot(plot_width, plot_height)
        return self._plotted[1]

    def _draw_plot(self, plot_width: int, plot_height: int) -> list[Row] | None:
        raw = [self._columns(line, line.points, plot_width) for line in self.lines]
        drawn = [
            self._columns(line, raster.smooth(line.points, self.smoothing), plot_width)
            if self.smoothing and not line.mark
            else cols
            for line, cols in zip(self.lines, raw, strict=True)
        ]
        values = raster.value_range(column for cols in raw for column in cols)
        if values is None:
            return None
        axis = self._choose_y(raw, *values, plot_height)
        return self._label(self._draw_lines(raw, drawn, axis, plot_width, plot_height), axis)

    def _columns(self, line: Line, points: Sequence[Point], plot_width: int) -> list[Column | None]:
        if self.x_range is not None and not line.mark:
            points = raster.clip_to_range(points, *self._x)
        return raster.to_columns(points, *self._x, plot_width * 2)

    def _empty(self, rows: list[Row], width: int, plot_height: int) -> list[Row]:
        text = "no data in this range" if self.x_range else "no data yet"
        row: Row = [(text.center(width), "chart--empty")]
        return rows + [[]] * (plot_height // 2) + [row]

    def _choose_x(self) -> bool:
        """Choose the visible x range; return False if there is no data."""
        measured = [line.points for line in self.lines if line.points]
        if not measured:
            return False
        if self.x_range is not None:
            self._x = self.x_range
            return True
        first, last = self._extent()
        if self.axis == TIME:
            span = max(last - first, 60.0)
            unit = next(unit for unit in _TIME_UNITS if span >= unit)
            self._x = (first, first + raster.nice_ceiling(span / unit) * unit)
        else:
            # The axis starts at 0, except for data that begins late in a run.
            start = 0.0 if first <= last / 4 else first - 1
            end = start + math.ceil(max(raster.nice_ceiling(last - start), 10.0))
            if self._x_end is not None and start < last <= self._x_end:
                end = min(end, self._x_end)
            self._x = (start, end)
        return True

    def _extent(self) -> tuple[float, float]:
        """Return the first and the last x of all data."""
        if self.x_extent is not None:
            return self.x_extent
        measured = [line.points for line in self.lines if line.points]
        return min(points[0][0] for points in measured), max(points[-1][0] for points in measured)

    def _choose_y(self, raw: list[list[Column | None]], low: float, high: float, plot_height: int) -> Axis:
        """Return the y axis: the current one if it still fits."""
        if self.log_axis:
            positive = [v for cols in raw for c in cols if c for v in (c.low, c.mean, c.high) if v > 0]
            low = min(positive, default=1e-3)
            high = max(high, low)
        elif self.from_zero:
            low = min(low, 0.0)
        if self._y_top is not None and not self.log_axis:
            high = max(high, self._y_top)
        # A label in every other row of a short plot, but two at least: a single tick shows no scale.
        count = max(min(2, plot_height), min((plot_height - 1) // 2, 5 if plot_height < 24 else 8))
        settings = (self.log_axis, count, self._y_top, self.x_range, self._scale)
        if settings != self._y_settings:
            self._y, self._y_settings = None, settings
        if self.log_axis:
            self._y = raster.stable_axis(self._y, low, high, lambda a, b: raster.log_axis(a, b, count))
        else:
            scale = self._scale
            self._y = raster.stable_axis(self._y, low, high, lambda a, b: raster.linear_axis(a, b, count, scale))
        return self._y

    def _draw_lines(
        self,
        raw: list[list[Column | None]],
        drawn: list[list[Column | None]],
        axis: Axis,
        plot_width: int,
        plot_height: int,
    ) -> plot.Cells:
        cells = plot.empty_cells(plot_width, plot_height)
        if self._limit is not None:
            plot.draw_level(cells, self._limit, "chart--limit", axis)
        for line, cols in zip(self.lines, raw, strict=True):
            if not line.mark:
                plot.draw_dots(cells, raster.band_masks(cols, axis, plot_height * 4), "chart--band")
                if self.smoothing:  # the measured line stays visible behind the smooth one
                    plot.draw_dots(cells, raster.line_masks(cols, axis, plot_height * 4), "chart--band")
        for line, cols in zip(self.lines, drawn, strict=True):
            if line.mark:
                plot.draw_points(cells, cols, line.mark, line.style, axis)
            else:
                plot.draw_dots(cells, raster.line_masks(cols, axis, plot_height * 4), line.style)
        return cells

    def _label(self, cells: plot.Cells, axis: Axis) -> list[Row]:
        """Return rows of cells with the labels of the y axis before them."""
        labels = plot.y_labels(axis, len(cells), tick_labels(axis.ticks, self._scale, _LABEL))
        units: dict[int, str] = {}
        if len(cells) >= _UNIT_MIN_ROWS:  # the unit stands in the first row without a label
            units[next(y for y in range(len(cells)) if y not in labels)] = self._unit
        return [
            [
                (
                    f"{labels.get(y) or units.get(y, ''):>{_LABEL}}"[:_LABEL] + ("┤" if y in labels else "│"),
                    "chart--axis",
                ),
                *plot.merge_spans(row),
            ]
            for y, row in enumerate(cells)
        ]

    def _x_row(self, plot_width: int) -> Row:
        steps, origin = plot.ROUND_NUMBERS, 0.0
        if self.axis == TIME:
            steps = plot.ROUND_TIMES
            # Clock times are round from midnight, elapsed times from the first point.
            origin = fmt.start_of_day(self._x[0]) if self._is_clock else self._first_x()
        text = plot.x_labels(*self._x, plot_width, steps, origin, self._x_text)
        return [(f"{self.axis:>{_LABEL}}└{text}", "chart--axis")]

    @property
    def _is_clock(self) -> bool:
        return self.x_range is not None and not self._elapsed

    def _x_text(self, x: float) -> str:
        x0, x1 = self._x
        if self.axis != TIME:
            return fmt.exact(x) if x >= 1e4 and x1 - x0 < x1 / 20 else fmt.axis(round(x))
        if self._is_clock:
            return fmt.axis_time(x, x1 - x0)
        elapsed = x - self._first_x()
        return "0" if elapsed < 1 else fmt.short_duration(elapsed)

    def _first_x(self) -> float:
        return 0.0 if self._elapsed else self._extent()[0]

    # The mouse

    def _x_at(self, cell: int) -> float:
        x0, x1 = self._x
        plot_width = max(self.size.width - _LABEL - 1, 1)
        return x0 + (x1 - x0) * min(max((cell - _LABEL - 0.5) / plot_width, 0.0), 1.0)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self._wheel(event, 0.7)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        self._wheel(event, 1 / 0.7)

    def _wheel(self, event: events.MouseEvent, factor: float) -> None:
        event.stop()
        self.post_message(self.ZoomRequested(self, self._x_at(event.x), factor))

    def on_mouse_down(self, event: events.MouseDown) -> None:
        self.capture_mouse()
        self._drag = event.x, False

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if self._drag is not None and event.x != self._drag[0]:
            self.post_message(self.PanRequested(self, (self._drag[0] - event.x) * 2 / self.dot_columns))
            self._drag = event.x, True

    def on_mouse_up(self, event: events.MouseUp) -> None:
        self.release_mouse()
        drag, self._drag = self._drag, None
        if drag is not None and not drag[1] and event.x > _LABEL:
            self.post_message(self.Clicked(self, self._x_at(event.x)))

    def watch_has_focus(self, _has_focus: bool) -> None:
        """Draw the title, which alone shows the focus. Textual would look up all styles again: none depends on it."""
        self.redraw()


def _first_fitting(texts: Sequence[str], width: int) -> str:
    """Return the first text that fits; an empty string if none does."""
    return next((text for text in texts if cell_len(text) <= width), "")
