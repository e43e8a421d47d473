"""The mathematics of a braille line chart: buckets to columns, columns to dots, values to axes. No terminal in here.

A *point* is ``(x, low, mean, high)``; ``mean is None`` marks a gap (nothing was measured, or it was not finite).
Braille gives two dots across and four down for each character cell.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

Point = tuple[float, float | None, float | None, float | None]


def _patterns(dots: tuple[int, int, int, int]) -> tuple[int, ...]:
    """For each of the 16 ways to set the four dots of a column, top one in bit 0: their bits in a braille character."""
    return tuple(sum(bit for i, bit in enumerate(dots) if ways >> i & 1) for ways in range(16))


# Looked up, for a picture of ten runs is some ten thousand cells.
_LEFT = _patterns((0x01, 0x02, 0x04, 0x40))
_RIGHT = _patterns((0x08, 0x10, 0x20, 0x80))
_CELLS = (" ", *(chr(0x2800 + bits) for bits in range(1, 256)))
_NICE = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
_BARS = "▁▂▃▄▅▆▇█"
_EVERY_OTHER = (int("01" * 1024, 2), int("10" * 1024, 2))  # by the column's parity: a pattern like a chessboard


class Column(NamedTuple):
    """What one column of dots has to show; ``joined`` is False after a gap."""

    mean: float
    low: float
    high: float
    last: float
    joined: bool


class Axis(NamedTuple):
    """A range of values (already through the logarithm where ``log``) and the ticks to label, lowest first."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def fraction(self, value: float) -> float | None:
        """Where ``value`` lies between ``low`` (0.0) and ``high`` (1.0); None where a logarithmic axis has no place."""
        if self.log:
            if value <= 0:
                return None
            value = math.log10(value)
        return (value - self.low) / (self.high - self.low)


def slice_in_range(points: Sequence[Point], x0: float, x1: float) -> slice:
    """Which of some points, ordered by x, lie in [x0, x1]."""
    return slice(bisect.bisect_left(points, x0, key=_x), bisect.bisect_right(points, x1, key=_x))


def clip_to_range(points: Sequence[Point], x0: float, x1: float) -> list[Point]:
    """The points in [x0, x1], and where the lines to their neighbours outside cross its ends."""
    inside = slice_in_range(points, x0, x1)
    out = list(points[inside])
    for x, place in ((x0, inside.start), (x1, inside.stop)):
        if 0 < place < len(points) and points[place][0] != x != points[place - 1][0]:
            (xa, _, a, _), (xb, _, b, _) = points[place - 1 : place + 1]
            if a is not None and b is not None and math.isfinite(a) and math.isfinite(b):
                y = a + (b - a) * (x - xa) / (xb - xa)
                out.insert(0 if x == x0 else len(out), (x, y, y, y))
    return out


def bucket_at(points: Sequence[Point], x: float) -> Point | None:
    """The point whose bucket holds ``x``: the first that ends at or behind it. None behind the last."""
    found = bisect.bisect_left(points, x, key=_x)
    return points[found] if found < len(points) else None


def _x(point: Point) -> float:
    return point[0]


def to_columns(points: Sequence[Point], x0: float, x1: float, width: int) -> list[Column | None]:
    """Put points, ordered by x, into ``width`` columns over [x0, x1].

    Every column keeps the extremes of all its points, so a spike of one step cannot fall between two columns. The last
    one is still filling while a run goes on: its line stays at its first value, for a mean moves with every point, and
    each move is bytes on the wire.
    """
    out: list[Column | None] = [None] * max(width, 0)
    if width <= 0 or not x1 > x0:
        return out
    scale = width / (x1 - x0)
    joined = False
    seen = slice_in_range(points, x0, x1)
    count, newest, first = 0, -1, 0.0
    for x, low, mean, high in points[seen]:
        if mean is None or not math.isfinite(mean):
            joined = False
            continue
        low = low if low is not None and math.isfinite(low) else mean
        high = high if high is not None and math.isfinite(high) else mean
        place = min(int((x - x0) * scale), width - 1)
        old = out[place]
        if old is None:
            out[place], count = Column(mean, min(low, mean), max(high, mean), mean, joined), 1
            newest, first = place, mean
        else:
            count += 1
            middle = old.mean + (mean - old.mean) / count
            out[place] = Column(middle, min(old.low, low, mean), max(old.high, high, mean), mean, old.joined)
        joined = True
    if count > 1 and (last := out[newest]) is not None:
        out[newest] = last._replace(mean=first)
    return out


def _span(a: int, b: int) -> int:
    """The bits from ``a`` to ``b``, both included, in either order."""
    a, b = (a, b) if a <= b else (b, a)
    return ((1 << (b - a + 1)) - 1) << a


def _row(axis: Axis, value: float, height: int) -> int | None:
    """The dot of ``height`` that shows ``value``, 0 the top one. Values beyond the axis stick to it."""
    place = axis.fraction(value)
    return None if place is None else height - 1 - min(max(int(place * (height - 1) + 0.5), 0), height - 1)


def line_masks(cols: Sequence[Column | None], axis: Axis, height: int) -> list[int]:
    """The line through the means: one bit mask a column of dots; bit 0 is the top one of ``height`` rows."""
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
        if column.joined and previous is not None:
            _join(masks, previous, (x, y))
        previous = x, y
    return masks


def band_masks(cols: Sequence[Column | None], axis: Axis, height: int) -> list[int]:
    """From the lowest to the highest value of every column that holds more than one; masks as those of ``line``.

    Every other dot, so that the line is told from it without colour too, but always both ends.
    """
    masks = [0] * len(cols)
    for x, column in enumerate(cols if height > 0 else ()):
        if column is None or column.low == column.high:
            continue
        low, high = _row(axis, column.low, height), _row(axis, column.high, height)
        if high is None:
            continue
        low = height - 1 if low is None else low
        masks[x] = _span(high, low) & _EVERY_OTHER[x % 2] | 1 << high | 1 << low
    return masks


def _join(masks: list[int], start: tuple[int, int], end: tuple[int, int]) -> None:
    """A line between two dots: each column between them takes the part of the climb that falls into it."""
    (x0, y0), (x1, y1) = start, end
    edge = y0
    for x in range(x0, x1):
        middle = y0 + round((y1 - y0) * (x - x0 + 0.5) / (x1 - x0))
        masks[x] |= _span(edge, middle)
        edge = middle
    masks[x1] |= _span(edge, y1)


def braille_rows(masks: Sequence[int], height: int) -> list[str]:
    """Bit masks (two a character) as ``height`` rows of text; an empty cell is a plain space."""
    pairs = list(zip(masks[::2], masks[1::2], strict=False))
    return [
        "".join([_CELLS[_LEFT[left >> top & 15] | _RIGHT[right >> top & 15]] for left, right in pairs])
        for top in range(0, height * 4, 4)
    ]


def value_range(cols: Iterable[Column | None]) -> tuple[float, float] | None:
    """The lowest and highest value that some columns show, or None without any."""
    shown = [column for column in cols if column is not None]
    return (min(c.low for c in shown), max(c.high for c in shown)) if shown else None


def nice_ceiling(value: float) -> float:
    """The next value of a short ladder (1, 1.25, 1.5, 2 …) at or above ``value``: an axis end that seldom moves."""
    if not value > 0 or not math.isfinite(value):
        return 1.0
    scale = 10.0 ** math.floor(math.log10(value))
    for step in _NICE:
        if value <= step * scale * (1 + 1e-12):
            return step * scale
    return 10.0 * scale


def linear_axis(low: float, high: float, ticks: int, unit: float = 1.0) -> Axis:
    """At most ``ticks`` + 2 ticks, round when counted in ``unit``; the ends lie on quarters of a tick."""
    low, high = low / unit, high / unit
    magnitude = max(abs(low), abs(high), 1e-30)
    if not high - low > magnitude * 1e-9:  # a constant still deserves room around it
        room = abs(low) * 0.1 or 1.0
        low, high = low - room, high + room
    step = _nice_step((high - low) / max(ticks, 1))
    quarter = step / 4
    bottom = math.floor(low / quarter + 1e-9) * quarter
    top = math.ceil(high / quarter - 1e-9) * quarter
    top = max(top, bottom + step)
    marks = range(math.ceil(bottom / step - 1e-9), math.floor(top / step + 1e-9) + 1)
    return Axis(bottom * unit, top * unit, tuple(mark * step * unit for mark in marks))


def _nice_step(raw: float) -> float:
    scale = 10.0 ** math.floor(math.log10(raw))
    for step in (1.0, 2.0, 2.5, 5.0, 10.0):
        if raw <= step * scale * (1 + 1e-12):
            return step * scale
    return 10.0 * scale


def log_axis(low: float, high: float, ticks: int) -> Axis:
    """A logarithmic axis over positive values, with ticks at 1, 2 and 5 times powers of ten."""
    low, high = max(low, 1e-300), max(high, 1e-300)
    marks = [m * 10.0**e for e in range(_exponent(low) - 1, min(_exponent(high) + 2, 308)) for m in (1, 2, 5)]
    below = [m for m in marks if m <= low * (1 + 1e-9)] or marks[:1]
    above = [m for m in marks if m >= high * (1 - 1e-9)] or marks[-1:]
    bottom, top = below[-1], above[0]
    if top <= bottom:
        bottom, top = bottom / 2, top * 2
    inside = [m for m in marks if bottom <= m <= top] or [bottom, top]
    stride = max(1, math.ceil((len(inside) - 1) / max(ticks, 1)))
    return Axis(math.log10(bottom), math.log10(top), tuple(inside[::stride]), log=True)


def _exponent(value: float) -> int:
    return max(math.floor(math.log10(value)), -300)


def stable_axis(old: Axis | None, low: float, high: float, make: Callable[[float, float], Axis]) -> Axis:
    """Keep ``old`` while the values stay in it and fill two fifths of it; else ask ``make`` for another.

    An axis that moves redraws its whole chart, so it moves in steps.
    """
    if old is not None:
        a, b = old.fraction(low), old.fraction(high)
        if a is not None and b is not None and a >= -1e-9 and b <= 1 + 1e-9 and b - a >= 0.4:
            return old
    return make(low, high)


def smooth(points: Sequence[Point], weight: float) -> list[Point]:
    """An exponential moving average of the means (bias corrected as in Adam); gaps stay gaps and start it afresh."""
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
    """The last ``width`` values as a row of bars; a space for what is missing."""
    shown = values[-width:] if width > 0 else []
    finite = [v for v in shown if v is not None and math.isfinite(v)]
    if not finite:
        return " " * max(width, 0)
    low, high = min(finite), max(finite)
    room = high - low

    def bar(value: float | None) -> str:
        if value is None or not math.isfinite(value):
            return " "
        place = (value - low) / room if room > 0 and math.isfinite(room) else 0.5
        return _BARS[min(int(place * len(_BARS)), len(_BARS) - 1)]

    return "".join(bar(v) for v in shown).rjust(width)
