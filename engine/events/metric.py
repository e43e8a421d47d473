"""Defines what is known of a metric besides its values: it stands beside the field in ``types.py`` that holds them."""

from __future__ import annotations

from typing import NamedTuple


class Metric(NamedTuple):
    """A number that is measured again and again, kept as a series and shown.

    ``format`` names a function of ``tui/text/format.py``, which writes the value with its unit. ``name``, ``field``
    and ``axis`` are filled in by ``metrics.py``.
    """

    title: str  # what users call it
    unit: str = ""  # of the value in the record
    format: str = "loss"
    status: int = 0  # cells of the value in the status line; 0: it is not there
    chart: bool = False  # a chart of the monitor draws it, so its history is read finely
    compare: bool = False  # it can be compared across runs
    readout: bool = False  # it is among the values at the cursor
    copied: bool = False  # it is among the values that are copied
    downsampled: str = "mean"  # what stands for a bucket of values: their mean (with minimum and maximum), or the last
    name: str = ""  # of its series, usually that of the field
    field: str = ""  # of the record
    axis: str = "step"  # or time
