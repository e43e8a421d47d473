"""A chart of several runs over each other, told apart by colour and by the letters that stand on their lines."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import ClassVar

from tui.app.state.raster import Point
from tui.app.widgets.chart import Chart, Line

COLOURS = 8  # that the colour-blind can tell apart too; beyond them letters alone do
_APART = 22  # cells between two letters of one line


def run_style(index: int) -> str:
    """The component class of run number ``index``."""
    return f"overlay--run{index % COLOURS}"


class OverlayChart(Chart):
    """A ``Chart`` with a style a run."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {run_style(index) for index in range(COLOURS)}

    def __init__(self, *, time_axis: bool = False) -> None:
        super().__init__("", time_axis=time_axis)
        self.add_class("by-time" if time_axis else "by-number")


def labelled_lines(lines: Sequence[tuple[str, str, Sequence[Point]]], cells: int) -> list[Line]:
    """Lines of (letter, style, points), later ones over earlier ones, and above them all their letters.

    Each has its letter at its end and, staggered so that letters of different lines do not meet, along the way over
    ``cells`` cells.
    """
    there = [(letter, style, points) for letter, style, points in lines if points]
    if not there:
        return []
    first = min(points[0][0] for _, _, points in there)
    last = max(points[-1][0] for _, _, points in there)
    each = max(cells // _APART, 1)
    drawn = [Line(points, style) for _, style, points in there]
    for number, (letter, style, points) in enumerate(there):
        places = [first + (last - first) * (i + (number + 0.5) / len(there)) / each for i in range(each)]
        xs = [point[0] for point in points]
        at = {bisect.bisect_left(xs, x) for x in places if x < xs[-1]} | {len(xs) - 1}
        reach = min(len(xs) // cells, 2)
        drawn.append(Line([found for i in sorted(at) if (found := _amid(points, i, reach))], style, mark=letter))
    return drawn


def _amid(points: Sequence[Point], index: int, reach: int) -> Point | None:
    """A point in the middle of a noisy line, not at one of its spikes: the mean of its neighbours up to ``reach``."""
    around = [point[2] for point in points[max(index - reach, 0) : index + reach + 1] if point[2] is not None]
    if not around:
        return None
    mean = sum(around) / len(around)
    return points[index][0], mean, mean, mean
