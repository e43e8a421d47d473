"""The cells of a chart's plot, drawn one thing over another: limits, bands, lines, marks, the cursor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from tui.app.state import raster
from tui.app.state.raster import Axis, Column, Point
from tui.app.widgets.canvas import Row, Span

Cells = list[list[Span]]
ROUND = tuple(float(digit * 10**exponent) for exponent in range(18) for digit in (1, 2, 5))
ROUND_TIMES = (  # seconds
    *(1.0, 2.0, 5.0, 10.0, 15.0, 30.0),
    *(60.0 * n for n in (1, 2, 5, 10, 15, 30)),
    *(3600.0 * n for n in (1, 2, 3, 6, 12)),
    *(86400.0 * n for n in ROUND[:12]),
)
_LABELS_APART = 10  # cells at least from one label of x to the next
_APART = 4  # cells from one point drawn as a character to the next


class Line(NamedTuple):
    """One series. ``style`` is a component class; ``mark`` draws its points as this character instead of a line."""

    points: Sequence[Point]
    style: str
    mark: str = ""


class Mark(NamedTuple):
    """Something that happened at ``x``, shown as ``char`` below the plot."""

    x: float
    char: str
    style: str


def blank(across: int, down: int) -> Cells:
    return [[(" ", "")] * across for _ in range(down)]


def stroke(cells: Cells, masks: Sequence[int], style: str) -> None:
    """Dots over what is there; a cell has one style, that of the last who drew in it, and only his dots."""
    for y, text in enumerate(raster.braille_rows(masks, len(cells))):
        for x, char in enumerate(text):
            if char != " ":
                cells[y][x] = (char, style)


def points(cells: Cells, cols: Sequence[Column | None], mark: str, style: str, axis: Axis) -> None:
    """Columns' last values as one character each, with room between them for what is below to be seen."""
    free = 0
    for x, column in enumerate(cols):
        y = None if column is None or x // 2 < free else _row(axis, column.last, len(cells))
        if y is not None:
            cells[y][x // 2] = (mark, style)
            free = x // 2 + _APART


def level(cells: Cells, value: float, style: str, axis: Axis) -> None:
    """A dashed line over the whole width, where the axis reaches it."""
    place = axis.fraction(value)
    if place is not None and 0 <= place <= 1 + 1e-9:
        y = _row(axis, value, len(cells))
        assert y is not None
        cells[y] = [("╌", style)] * len(cells[y])


def upright(cells: Cells, x: int, style: str) -> None:
    """The cursor: a line from top to bottom that leaves what it meets to be read."""
    for row in cells:
        char, under = row[x]
        row[x] = ("│" if char == " " else char, f"{under} {style}".strip())


def marks(shown: Iterable[Mark], x0: float, x1: float, across: int) -> Row:
    """One row of marks; where several meet the last is seen."""
    row: list[Span] = [(" ", "")] * across
    for x, char, style in shown:
        if x0 <= x <= x1:
            row[min(int((x - x0) / (x1 - x0) * across), across - 1)] = (char, style)
    return joined(row)


def labels(axis: Axis, down: int, text: Callable[[float], str]) -> dict[int, str]:
    """Row → text of its tick; where two ticks meet in a row the higher one stays."""
    return {y: text(tick) for tick in axis.ticks if (y := _row(axis, tick, down)) is not None}


def x_labels(
    x0: float, x1: float, across: int, steps: Iterable[float], origin: float, text: Callable[[float], str]
) -> str:
    """Round values in [x0, x1], each below its place: multiples, counted from ``origin``, of the shortest of ``steps``
    (ascending) whose labels have room."""
    for step in steps:
        room = step * across / (x1 - x0)
        if room < _LABELS_APART:
            continue
        first, last = math.ceil((x0 - origin) / step - 1e-9), math.floor((x1 - origin) / step + 1e-9)
        shown = [(x, text(x)) for x in (origin + n * step for n in range(first, last + 1))]
        if all(len(label) + 2 <= room for _, label in shown):
            break
    else:
        return " " * across
    cells, free = [" "] * across, 0
    for value, label in shown:
        at = min(max(round((value - x0) / (x1 - x0) * across) - len(label) // 2, 0), across - len(label))
        if at >= free:
            cells[at : at + len(label)] = label
            free = at + len(label) + 1
    return "".join(cells)


def joined(cells: Iterable[Span]) -> Row:
    """Neighbouring cells of one style as one span."""
    row: Row = []
    for char, style in cells:
        if row and row[-1][1] == style:
            row[-1] = (row[-1][0] + char, style)
        else:
            row.append((char, style))
    return row


def _row(axis: Axis, value: float, down: int) -> int | None:
    place = axis.fraction(value)
    return None if place is None else min(max(int((1 - place) * (down - 1) + 0.5), 0), down - 1)
