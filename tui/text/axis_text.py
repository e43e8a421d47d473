"""Says in which unit the axis of a metric is, and writes the labels of its ticks."""

from __future__ import annotations

from collections.abc import Sequence

from engine.events.metric import Metric
from tui.text import format as fmt

_UNITS = {"percent": ("%", 0.01), "percent_of_100": ("%", 1.0), "duration": ("s", 1.0)}  # by format: unit and scale
_MOST_DECIMALS = 12


def chart_unit(metric: Metric, value: float | None) -> tuple[str, float]:
    """Return the unit of a metric's axis, and its scale, for values about as large as ``value``."""
    if metric.format == "size":
        scale, unit = fmt.size_scale(value)
        return unit, scale
    return _UNITS.get(metric.format, (metric.unit, 1.0))


def tick_labels(ticks: Sequence[float], scale: float = 1.0) -> list[str]:
    """Return the label of each tick in units of ``scale``, with as many decimals as tell them apart."""
    labels, decimals = [fmt.axis(tick / scale) for tick in ticks], 0
    while len({*labels}) < len({*ticks}) and decimals <= _MOST_DECIMALS:
        labels, decimals = [f"{tick / scale:,.{decimals}f}" for tick in ticks], decimals + 1
    return labels
