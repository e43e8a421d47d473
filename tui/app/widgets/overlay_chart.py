"""Draws several runs in one chart, distinguished by colour and by letters on their lines."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import ClassVar

from engine.events.series import Point
from tui.app.widgets.chart import CHART_STYLES, Chart, Line

COLOURS = 8  # distinguishable for colour-blind users too; more runs differ only by letter
_LETTER_DISTANCE = 22  # cells between two letters of one line


def run_style(index: int) -> str:
    """Return the component class of run number ``index``."""
    return f"overlay--run{index % COLOURS}"


class OverlayChart(Chart):
    """A ``Chart`` with one style per run."""

    COMPONENT_CLASSES: ClassVar[set[str]] = CHART_STYLES | {run_style(index) for index in range(COLOURS)}

    def __init__(self) -> None:
        super().__init__("", elapsed=True)


def labelled_lines(lines: Sequence[tuple[str, str, Sequence[Point]]], cells: int) -> list[Line]:
    """Return the chart lines for (letter, style, points), drawn in order, and above them their letters.

    Each line has its letter at its end and at intervals over a plot of ``cells`` cells, staggered so that the letters
    of different lines do not collide.
    """
    measured = [(letter, style, points) for letter, style, points in lines if points]
    if not measured:
        return []
    first = min(points[0][0] for _, _, points in measured)
    last = max(points[-1][0] for _, _, points in measured)
    per_line = max(cells // _LETTER_DISTANCE, 1)
    drawn = [Line(points, style) for _, style, points in measured]
    for number, (letter, style, points) in enumerate(measured):
        positions = [first + (last - first) * (i + (number + 0.5) / len(measured)) / per_line for i in range(per_line)]
        xs = [point[0] for point in points]
        indices = {bisect.bisect_left(xs, x) for x in positions if x < xs[-1]} | {len(xs) - 1}
        reach = min(len(xs) // cells, 2)
        drawn.append(
            Line([mean for i in sorted(indices) if (mean := _local_mean(points, i, reach))], style, mark=letter)
        )
    return drawn


def _local_mean(points: Sequence[Point], index: int, reach: int) -> Point | None:
    """Return a point with the mean of up to ``reach`` neighbours on each side, so that it is not on a spike."""
    around = [point[2] for point in points[max(index - reach, 0) : index + reach + 1] if point[2] is not None]
    if not around:
        return None
    mean = sum(around) / len(around)
    return points[index][0], mean, mean, mean
