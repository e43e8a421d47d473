"""Says in which unit the axis of a metric is, and writes the labels of its ticks."""

from __future__ import annotations

from collections.abc import Sequence

from engine.events.metric import Metric
from tui.text import format as fmt

_UNITS = {"percent": ("%", 0.01), "percent_of_100": ("%", 1.0), "duration": ("s", 1.0)}  # by format: unit and scale
_MOST_DECIMALS = 12
_MOST_SMALL = 0.1  # an axis that ends below it has small numbers


def chart_unit(metric: Metric, value: float | None) -> tuple[str, float]:
    """Return the unit of a metric's axis, and its scale, for values about as large as ``value``."""
    if metric.format == "size":
        scale, unit = fmt.size_scale(value)
        return unit, scale
    return _UNITS.get(metric.format, (metric.unit, 1.0))


def tick_labels(ticks: Sequence[float], scale: float = 1.0, width: int | None = None) -> list[str]:
    """Return the label of each tick in units of ``scale``, with as many decimals as tell them apart.

    Where these do not fit into ``width`` cells, two ticks may have the same label.
    """
    values = [tick / scale for tick in ticks]
    labels = plain = _alike(values)
    decimals = 0
    while len({*labels}) < len({*ticks}) and decimals <= _MOST_DECIMALS:
        labels, decimals = [f"{value:,.{decimals}f}" for value in values], decimals + 1
    return labels if width is None or max(map(len, labels), default=0) <= width else plain


def _alike(values: Sequence[float]) -> list[str]:
    """Return short labels: small numbers all with an exponent if one of them has it, ``5e-4`` and ``1e-3``."""
    size = max(map(abs, values), default=0.0)
    exponents = size < _MOST_SMALL and any(0 < abs(value) < fmt.SMALL for value in values)
    return [fmt.scientific(value) if exponents and value else fmt.axis(value) for value in values]
