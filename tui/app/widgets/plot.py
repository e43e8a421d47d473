"""Draws into the cells of a chart's plot: limits, bands, lines, points, marks, cursor and axis labels."""

from __future__ import annotations

import itertools
import math
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from engine.events.series import Point
from tui.app.state import raster
from tui.app.state.raster import Axis, Column
from tui.app.widgets.canvas import Row, Span

Cells = list[list[Span]]
ROUND_NUMBERS = tuple(float(digit * 10**exponent) for exponent in range(18) for digit in (1, 2, 5))
ROUND_TIMES = (  # seconds
    *(1.0, 2.0, 5.0, 10.0, 15.0, 30.0),
    *(60.0 * n for n in (1, 2, 5, 10, 15, 30)),
    *(3600.0 * n for n in (1, 2, 3, 6, 12)),
    *(86400.0 * n for n in ROUND_NUMBERS[:12]),
)
_DOTS = re.compile("[^ ]+")
_MIN_LABEL_DISTANCE = 10  # cells from one x label to the next
_NEAREST_LABELS = 3  # a digit and a gap
_POINT_DISTANCE = 4  # cells from one point drawn as a character to the next


class Line(NamedTuple):
    """One series. ``style`` is a component class; ``mark`` draws its points as this character instead of a line."""

    points: Sequence[Point]
    style: str
    mark: str = ""


class Mark(NamedTuple):
    """An event at ``x``, shown as ``char`` below the plot."""

    x: float
    char: str
    style: str


def empty_cells(width: int, height: int) -> Cells:
    return [[(" ", "")] * width for _ in range(height)]


def draw_dots(cells: Cells, masks: Sequence[int], style: str) -> None:
    """Draw dots; a cell shows only the dots and the style of the last drawing."""
    for row, text in zip(cells, raster.braille_rows(masks, len(cells)), strict=True):
        for dots in _DOTS.finditer(text):
            row[dots.start() : dots.end()] = zip(dots.group(), itertools.repeat(style))


def draw_points(cells: Cells, cols: Sequence[Column | None], mark: str, style: str, axis: Axis) -> None:
    """Draw the last value of columns as a character, with gaps in between so that the drawing below stays visible."""
    free = 0
    for x, column in enumerate(cols):
        y = None if column is None or x // 2 < free else _row(axis, column.last, len(cells))
        if y is not None:
            cells[y][x // 2] = (mark, style)
            free = x // 2 + _POINT_DISTANCE


def draw_level(cells: Cells, value: float, style: str, axis: Axis) -> None:
    """Draw a dashed horizontal line at ``value`` if the axis includes it."""
    fraction = axis.fraction(value)
    if fraction is not None and 0 <= fraction <= 1 + 1e-9:
        y = _row(axis, value, len(cells))
        assert y is not None
        cells[y] = [("╌", style)] * len(cells[y])


def cross(row: Row, x: int, style: str) -> Row:
    """Return a row of narrow characters with a vertical line through cell ``x``; a character there stays."""
    crossed: Row = []
    start = 0
    for text, below in row:
        if 0 <= (at := x - start) < len(text):
            char = "│" if text[at] == " " else text[at]
            parts = [(text[:at], below), (char, f"{below} {style}".strip()), (text[at + 1 :], below)]
            crossed += [part for part in parts if part[0]]
        else:
            crossed.append((text, below))
        start += len(text)
    return crossed


def mark_row(marks: Iterable[Mark], x0: float, x1: float, width: int) -> Row:
    """Return a row of marks; of several in one cell, the last is shown."""
    row: list[Span] = [(" ", "")] * width
    for x, char, style in marks:
        if x0 <= x <= x1:
            row[min(int((x - x0) / (x1 - x0) * width), width - 1)] = (char, style)
    return merge_spans(row)


def y_labels(axis: Axis, height: int, labels: Sequence[str]) -> dict[int, str]:
    """Return the label of each row that has a tick, of ``labels`` for all; of two ticks in one row, the higher one."""
    ticks = zip(axis.ticks, labels, strict=True)
    return {y: label for tick, label in ticks if (y := _row(axis, tick, height)) is not None}


def x_labels(
    x0: float, x1: float, width: int, steps: Iterable[float], origin: float, text: Callable[[float], str]
) -> str:
    """Return the labels of [x0, x1] as text, each below its x.

    They are multiples, counted from ``origin``, of the shortest of ``steps`` (ascending) whose labels fit. Where none
    lies in [x0, x1] at the distance that is wanted, they are nearer.
    """
    labels: list[tuple[float, str]] = []
    rounding = (x1 - x0) * 1e-9
    for step in steps:
        distance = step * width / (x1 - x0)
        if distance < _NEAREST_LABELS:
            continue
        first, last = math.ceil((x0 - rounding - origin) / step), math.floor((x1 + rounding - origin) / step)
        found = [(x, text(x)) for x in (origin + n * step for n in range(first, last + 1))]
        if labels and not found:
            break
        labels = found  # of those that do not fit, some are left out below
        if found and distance >= _MIN_LABEL_DISTANCE and all(len(label) + 2 <= distance for _, label in found):
            break
    cells, free = [" "] * width, 0
    for x, label in labels:
        start = min(max(round((x - x0) / (x1 - x0) * width) - len(label) // 2, 0), width - len(label))
        if start >= free:
            cells[start : start + len(label)] = label
            free = start + len(label) + 1
    return "".join(cells)


def merge_spans(cells: Iterable[Span]) -> Row:
    """Merge neighbouring cells of the same style into one span."""
    grouped = itertools.groupby(cells, operator.itemgetter(1))
    return [("".join([char for char, _ in group]), style) for style, group in grouped]


def _row(axis: Axis, value: float, height: int) -> int | None:
    fraction = axis.fraction(value)
    return None if fraction is None else min(max(int((1 - fraction) * (height - 1) + 0.5), 0), height - 1)
