"""Computes braille line charts: buckets to dot columns, columns to dots, value ranges to axes. Needs no terminal.

A *point* is ``(x, low, mean, high)``; ``mean is None`` marks a gap (nothing was measured, or it was not finite).
A braille character has two dots across and four down.
"""

from __future__ import annotations

import bisect
import functools
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from engine.events.series import Point


def _patterns(dots: tuple[int, int, int, int]) -> tuple[int, ...]:
    """Return the braille bits of all 16 masks of one dot column; bit 0 of a mask is the top dot."""
    return tuple(sum(bit for i, bit in enumerate(dots) if mask >> i & 1) for mask in range(16))


# Lookup tables, because a chart of ten runs has some ten thousand cells.
_LEFT = _patterns((0x01, 0x02, 0x04, 0x40))
_RIGHT = _patterns((0x08, 0x10, 0x20, 0x80))
_CELLS = (" ", *(chr(0x2800 + bits) for bits in range(1, 256)))
_NICE = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 10.0)
_LOG_ENDS = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
_LOG_TICKS = ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8))  # ever denser
_BARS = "▁▂▃▄▅▆▇█"
_CHECKERBOARD = (int("01" * 1024, 2), int("10" * 1024, 2))  # by the parity of the column


class Column(NamedTuple):
    """The values that one column of dots shows; ``connected`` is False after a gap."""

    mean: float
    low: float
    high: float
    last: float
    connected: bool


class Axis(NamedTuple):
    """A range of values (of log10 of the values if ``log``) and the ticks to label, lowest first."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def fraction(self, value: float) -> float | None:
        """Return the position of ``value`` from ``low`` (0.0) to ``high`` (1.0); None if a log axis cannot show it."""
        if self.log:
            if value <= 0:
                return None
            value = math.log10(value)
        return (value - self.low) / (self.high - self.low)


def slice_in_range(points: Sequence[Point], x0: float, x1: float) -> slice:
    """Return the slice of ``points`` (ordered by x) that lies in [x0, x1]."""
    return slice(bisect.bisect_left(points, x0, key=_x), bisect.bisect_right(points, x1, key=_x))


def clip_to_range(points: Sequence[Point], x0: float, x1: float) -> list[Point]:
    """Return the points in [x0, x1], plus the points at which the line through all points enters and leaves it."""
    inside = slice_in_range(points, x0, x1)
    out = list(points[inside])
    for x, index in ((x0, inside.start), (x1, inside.stop)):
        if 0 < index < len(points) and points[index][0] != x != points[index - 1][0]:
            (xa, _, a, _), (xb, _, b, _) = points[index - 1 : index + 1]
            if a is not None and b is not None and math.isfinite(a) and math.isfinite(b):
                y = a + (b - a) * (x - xa) / (xb - xa)
                out.insert(0 if x == x0 else len(out), (x, y, y, y))
    return out


def bucket_at(points: Sequence[Point], x: float) -> Point | None:
    """Return the point whose bucket contains ``x``: the first that ends at or after it. None after the last."""
    index = bisect.bisect_left(points, x, key=_x)
    return points[index] if index < len(points) else None


def _x(point: Point) -> float:
    return point[0]


def to_columns(points: Sequence[Point], x0: float, x1: float, width: int) -> list[Column | None]:
    """Aggregate points, ordered by x, into ``width`` columns over [x0, x1].

    Each column keeps the extremes of all its points, so a spike of a single step stays visible. The last column still
    fills while a run is active: its line stays at its first value, because a mean changes with every point, and each
    change is bytes sent to the terminal.
    """
    out: list[Column | None] = [None] * max(width, 0)
    if width <= 0 or not x1 > x0:
        return out
    scale, rightmost, is_finite = width / (x1 - x0), width - 1, math.isfinite
    connected = False  # no gap since the last point
    index, count, joined = -1, 0, False  # of the column that is being filled
    average = lowest = highest = first = last = 0.0
    for x, low, mean, high in points[slice_in_range(points, x0, x1)]:
        if mean is None or not is_finite(mean):
            connected = False
            continue
        low = low if low is not None and low < mean and is_finite(low) else mean
        high = high if high is not None and high > mean and is_finite(high) else mean
        last_index, index = index, min(int((x - x0) * scale), rightmost)
        if index == last_index:
            count += 1
            average += (mean - average) / count
            lowest, highest = low if low < lowest else lowest, high if high > highest else highest
        else:
            if count:
                out[last_index] = Column(average, lowest, highest, last, joined)
            count, joined = 1, connected
            average, lowest, highest, first = mean, low, high, mean
        last, connected = mean, True
    if count:
        out[index] = Column(first, lowest, highest, last, joined)
    return out


def _span(a: int, b: int) -> int:
    """Return a mask with the bits from ``a`` to ``b`` set, both included, in either order."""
    a, b = (a, b) if a <= b else (b, a)
    return ((1 << (b - a + 1)) - 1) << a


def _row(axis: Axis, value: float, height: int) -> int | None:
    """Return the row of dots, of ``height``, for ``value``; 0 is the top. Values beyond the axis are clamped."""
    fraction = axis.fraction(value)
    return None if fraction is None else height - 1 - min(max(int(fraction * (height - 1) + 0.5), 0), height - 1)


def line_masks(cols: Sequence[Column | None], axis: Axis, height: int) -> list[int]:
    """Return the line through the means as one bit mask per dot column; bit 0 is the top of ``height`` rows."""
    masks = [0] * len(cols)
    previous: tuple[int, int] | None = None
    for x, column in enumerate(cols if height > 0 else ()):
        if column is None:
            continue
        y = _row(axis, column.mean, height)
        if y is None:
            previous = None
            continue
        masks[x] |= 1 << y
        if column.connected and previous is not None:
            _draw_segment(masks, previous, (x, y))
        previous = x, y
    return masks


def band_masks(cols: Sequence[Column | None], axis: Axis, height: int) -> list[int]:
    """Return the range from lowest to highest value of each column with several values, as masks like ``line_masks``.

    Only every other dot is set, so that the line can be distinguished without colour; both ends always are.
    """
    masks = [0] * len(cols)
    for x, column in enumerate(cols if height > 0 else ()):
        if column is None or column.low == column.high:
            continue
        low, high = _row(axis, column.low, height), _row(axis, column.high, height)
        if high is None:
            continue
        low = height - 1 if low is None else low
        masks[x] = _span(high, low) & _CHECKERBOARD[x % 2] | 1 << high | 1 << low
    return masks


def _draw_segment(masks: list[int], start: tuple[int, int], end: tuple[int, int]) -> None:
    """Draw the line between two dots: each column between them gets its part of the rise."""
    (x0, y0), (x1, y1) = start, end
    edge = y0
    for x in range(x0, x1):
        middle = y0 + round((y1 - y0) * (x - x0 + 0.5) / (x1 - x0))
        masks[x] |= _span(edge, middle)
        edge = middle
    masks[x1] |= _span(edge, y1)


def braille_rows(masks: Sequence[int], height: int) -> list[str]:
    """Return bit masks (two per character) as ``height`` rows of text; an empty cell is a space."""
    pairs = list(zip(masks[::2], masks[1::2], strict=False))
    blank, used = " " * len(pairs), functools.reduce(operator.or_, masks, 0)
    return [
        "".join([_CELLS[_LEFT[left >> top & 15] | _RIGHT[right >> top & 15]] for left, right in pairs])
        if used >> top & 15
        else blank
        for top in range(0, height * 4, 4)
    ]


def value_range(cols: Iterable[Column | None]) -> tuple[float, float] | None:
    """Return the lowest and the highest value in the columns, or None if all are empty."""
    filled = [column for column in cols if column is not None]
    return (min(c.low for c in filled), max(c.high for c in filled)) if filled else None


def nice_ceiling(value: float) -> float:
    """Return the next round number (1, 1.5, 2, 3, 4, 6, 8) at or above ``value``: an axis end that rarely changes."""
    if not value > 0 or not math.isfinite(value):
        return 1.0
    scale = 10.0 ** math.floor(math.log10(value))
    for step in _NICE:
        if value <= step * scale * (1 + 1e-12):
            return step * scale
    return 10.0 * scale


def linear_axis(low: float, high: float, ticks: int, unit: float = 1.0) -> Axis:
    """Return an axis with at most ``ticks`` + 2 ticks, round in ``unit``; its ends are multiples of a quarter tick."""
    low, high = low / unit, high / unit
    magnitude = max(abs(low), abs(high), 1e-30)
    if not high - low > magnitude * 1e-9:  # a constant gets a margin on both sides
        margin = abs(low) * 0.1 or 1.0
        low, high = low - margin, high + margin
    step = _nice_step((high - low) / max(ticks, 1))
    quarter = step / 4
    bottom = math.floor(low / quarter + 1e-9) * quarter
    top = math.ceil(high / quarter - 1e-9) * quarter
    top = max(top, bottom + step)
    multiples = range(math.ceil(bottom / step - 1e-9), math.floor(top / step + 1e-9) + 1)
    return Axis(bottom * unit, top * unit, tuple(n * step * unit for n in multiples))


def _nice_step(raw: float) -> float:
    scale = 10.0 ** math.floor(math.log10(raw))
    for step in (1.0, 2.0, 2.5, 5.0, 10.0):
        if raw <= step * scale * (1 + 1e-12):
            return step * scale
    return 10.0 * scale


def log_axis(low: float, high: float, ticks: int) -> Axis:
    """Return a logarithmic axis from ``low`` to ``high``, both positive, with at most ``ticks`` + 2 ticks.

    It ends at the next values of one and a half digits, so it is as high as the data asks for. The ticks are the
    densest that fit: at powers of ten, at 1, 2 and 5 times them, or at every digit; in less than a factor of 2, those
    of a linear axis.
    """
    low, high = max(low, 1e-300), max(high, 1e-300)
    if high < 2 * low:
        linear = linear_axis(low, high, ticks)
        if linear.low > 0:
            return Axis(math.log10(linear.low), math.log10(linear.high), linear.ticks, log=True)
    exponents = range(_exponent(low) - 1, min(_exponent(high) + 2, 308))
    ends = [digit * 10.0**exponent for exponent in exponents for digit in _LOG_ENDS]
    bottom = max((end for end in ends if end <= low * (1 + 1e-9)), default=ends[0])
    top = min((end for end in ends if end >= high * (1 - 1e-9)), default=ends[-1])
    found: list[float] = []
    for digits in _LOG_TICKS:
        inside = [tick for e in exponents for digit in digits if bottom <= (tick := digit * 10.0**e) <= top]
        if len(inside) > ticks + 2:
            found = found if len(found) > 1 else inside[:: math.ceil(len(inside) / max(ticks, 1))]
            break
        found = inside
    if len(found) < 2:
        found = [bottom, top]
    return Axis(math.log10(bottom), math.log10(top), tuple(found), log=True)


def _exponent(value: float) -> int:
    return max(math.floor(math.log10(value)), -300)


def stable_axis(old: Axis | None, low: float, high: float, make: Callable[[float, float], Axis]) -> Axis:
    """Return ``old`` while the values fit it and fill two fifths of it, else a new axis from ``make``.

    A new axis redraws the whole chart, so it changes in steps.
    """
    if old is not None:
        a, b = old.fraction(low), old.fraction(high)
        if a is not None and b is not None and a >= -1e-9 and b <= 1 + 1e-9 and b - a >= 0.4:
            return old
    return make(low, high)


def smooth(points: Sequence[Point], weight: float) -> list[Point]:
    """Return the exponential moving average of the means, bias-corrected as in Adam; a gap resets the average."""
    out: list[Point] = []
    average, norm = 0.0, 0.0
    for x, _, mean, _ in points:
        if mean is None or not math.isfinite(mean):
            average, norm = 0.0, 0.0
            out.append((x, None, None, None))
            continue
        average = weight * average + (1 - weight) * mean
        norm = weight * norm + (1 - weight)
        value = average / norm
        out.append((x, value, value, value))
    return out


def sparkline(values: Sequence[float | None], width: int) -> str:
    """Return the last ``width`` values as bar characters; a missing value is a space."""
    recent = values[-width:] if width > 0 else []
    finite = [v for v in recent if v is not None and math.isfinite(v)]
    if not finite:
        return " " * max(width, 0)
    low, high = min(finite), max(finite)
    span = high - low

    def bar(value: float | None) -> str:
        if value is None or not math.isfinite(value):
            return " "
        fraction = (value - low) / span if span > 0 and math.isfinite(span) else 0.5
        return _BARS[min(int(fraction * len(_BARS)), len(_BARS) - 1)]

    return "".join(bar(v) for v in recent).rjust(width)
