"""A braille line chart: a title with live numbers, round axes that move in steps, gaps where nothing was measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

from rich.cells import cell_len
from textual import events

from tui import format as words
from tui.widgets import raster
from tui.widgets.canvas import Canvas, Row, Span, clip
from tui.widgets.raster import Axis, Point

_LABEL = 6  # cells left of the plot
_TIME_UNITS = (86400.0, 3600.0, 60.0)  # seconds in which a time axis ends round


class Line(NamedTuple):
    """One series. ``style`` is a component class; ``mark`` draws its points as this character instead of a line."""

    points: Sequence[Point]
    style: str
    mark: str = ""


class Chart(Canvas, can_focus=True):
    """Draws ``lines`` over one x axis.

    ``time_axis``: x is unix seconds, labelled as the time since the first point; otherwise x is a step number.
    ``y_text`` labels a value. ``y_unit`` gives the unit in which the ticks of an axis up to a value are round.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "chart--title",
        "chart--title-focus",
        "chart--axis",
        "chart--line",
        "chart--second",
        "chart--mark",
        "chart--empty",
    }

    def __init__(
        self,
        title: str,
        *,
        id: str | None = None,
        time_axis: bool = False,
        y_text: Callable[[float], str] = words.axis,
        y_unit: Callable[[float], float] = lambda value: 1.0,
        from_zero: bool = False,
    ) -> None:
        super().__init__(id=id)
        self.titles: Sequence[str] = (title,)
        self.lines: list[Line] = []
        self.y_top: float | None = None
        self.x_end: float | None = None
        self.log_axis = False
        self.smoothing = 0.0
        self._time_axis = time_axis
        self._y_text = y_text
        self._y_unit = y_unit
        self._from_zero = from_zero
        self._y: Axis | None = None
        self._y_kind: tuple[bool, int, float | None] = (False, 0, None)
        self._x: tuple[float, float] = (0.0, 0.0)

    def show(
        self,
        titles: Sequence[str],
        lines: list[Line],
        y_top: float | None = None,
        x_end: float | None = None,
    ) -> None:
        """Replace what is drawn. Of ``titles``, longest first, the first that fits is shown.

        ``y_top`` is a capacity the y axis reaches up to; ``x_end`` is where x can get at most.
        """
        self.titles, self.lines, self.y_top, self.x_end = titles, lines, y_top, x_end
        self.redraw()

    def on_focus(self, event: events.Focus) -> None:
        self.redraw()

    def on_blur(self, event: events.Blur) -> None:
        self.redraw()

    def draw(self, width: int, height: int) -> list[Row]:
        number = self.id.rpartition("-")[2] if self.id else ""
        style = "chart--title-focus" if self.has_focus else "chart--title"
        fitting = (title for title in self.titles if cell_len(title) + len(number) + 2 <= width)
        title = next(fitting, self.titles[-1])
        rows: list[Row] = [[(clip(f" {number} {title}".ljust(width), width), style)]]
        across, down = width - _LABEL - 1, height - 2
        if across < 2 or down < 1:
            return rows
        lines = [self._prepared(line) for line in self.lines]
        found = [e for line in lines if (e := raster.extremes(line.points)) is not None]
        if not found:
            empty: Row = [(clip("nothing measured yet".center(width), width), "chart--empty")]
            return rows + [[]] * (down // 2) + [empty]
        self._settle(lines, min(e[0] for e in found), max(e[1] for e in found), down)
        return rows + self._plot(lines, across, down) + [self._x_row(across)]

    def _prepared(self, line: Line) -> Line:
        if self.smoothing and not line.mark:
            return line._replace(points=raster.smooth(line.points, self.smoothing))
        return line

    def _settle(self, lines: list[Line], low: float, high: float, down: int) -> None:
        """Choose the axes, or keep those there are."""
        if self.log_axis:
            positive = [v for line in lines for p in line.points for v in (p[1], p[2]) if v is not None and v > 0]
            low = min(positive, default=1e-3)
            high = max(high, low)
        elif self._from_zero:
            low = min(low, 0.0)
        if self.y_top is not None and not self.log_axis:
            high = max(high, self.y_top)
        # On a short plot every other row is enough for a label.
        count = max(1, min((down - 1) // 2, 5))
        kind = (self.log_axis, count, self.y_top)
        if kind != self._y_kind:
            self._y, self._y_kind = None, kind
        if self.log_axis:
            self._y = raster.settled(self._y, low, high, lambda a, b: raster.log_axis(a, b, count))
        else:
            unit = self._y_unit(high)
            self._y = raster.settled(self._y, low, high, lambda a, b: raster.linear_axis(a, b, count, unit))
        first = min(line.points[0][0] for line in lines if line.points)
        last = max(line.points[-1][0] for line in lines if line.points)
        if self._time_axis:
            span = max(last - first, 60.0)
            unit = next(unit for unit in _TIME_UNITS if span >= unit)
            self._x = (first, first + raster.nice_ceiling(span / unit) * unit)
        else:
            # Early in a run the axis starts at step 0; a run that resumed far along starts where it did.
            start = 0.0 if first <= last / 4 else first - 1
            end = start + math.ceil(max(raster.nice_ceiling(last - start), 10.0))
            if self.x_end is not None and start < last <= self.x_end:
                end = min(end, self.x_end)
            self._x = (start, end)

    def _plot(self, lines: list[Line], across: int, down: int) -> list[Row]:
        axis = self._y
        assert axis is not None
        cells: list[list[Span]] = [[(" ", "")] * across for _ in range(down)]
        for line in lines:
            cols = raster.columns(line.points, *self._x, across * 2)
            if line.mark:
                self._marks(cells, cols, line, axis)
                continue
            for y, text in enumerate(raster.braille(raster.dots(cols, axis, down * 4), down)):
                for x, char in enumerate(text):
                    if char != " ":
                        cells[y][x] = (_over(cells[y][x][0], char), line.style)
        labels = self._labels(axis, down)
        return [
            [(f"{labels.get(y, ''):>{_LABEL}}"[:_LABEL] + ("┤" if y in labels else "│"), "chart--axis"), *_joined(row)]
            for y, row in enumerate(cells)
        ]

    def _marks(self, cells: list[list[Span]], cols: list[raster.Column | None], line: Line, axis: Axis) -> None:
        down = len(cells)
        for x, column in enumerate(cols):
            place = None if column is None else axis.place(column.last)
            if place is not None:
                y = min(max(int((1 - place) * (down - 1) + 0.5), 0), down - 1)
                cells[y][x // 2] = (line.mark, line.style)

    def _labels(self, axis: Axis, down: int) -> dict[int, str]:
        """Row → text of its tick; where two ticks meet in a row the higher one stays."""
        labels: dict[int, str] = {}
        for tick in axis.ticks:
            place = axis.place(tick)
            if place is not None:
                labels[min(max(int((1 - place) * (down - 1) + 0.5), 0), down - 1)] = self._y_text(tick)
        return labels

    def _x_row(self, across: int) -> Row:
        x0, x1 = self._x
        if self._time_axis:
            start, middle, end = ("0", *(words.short_duration((x1 - x0) * part) for part in (0.5, 1.0)))
        else:
            start, middle, end = (words.axis(round(x0 + (x1 - x0) * part)) for part in (0.0, 0.5, 1.0))
        text = list(start.ljust(across))
        if across >= 24:
            at = across // 2 - len(middle) // 2
            text[at : at + len(middle)] = middle
        text[across - len(end) :] = end
        return [(" " * _LABEL + "└", "chart--axis"), ("".join(text)[:across], "chart--axis")]


def _over(below: str, above: str) -> str:
    """Two braille cells in one; anything else is covered."""
    if "\u2800" <= below <= "\u28ff":
        return chr(ord(below) | ord(above))
    return above


def _joined(cells: list[Span]) -> Row:
    """Neighbouring cells of one style as one span."""
    row: Row = []
    for char, style in cells:
        if row and row[-1][1] == style:
            row[-1] = (row[-1][0] + char, style)
        else:
            row.append((char, style))
    return row
