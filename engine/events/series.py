"""Keeps one series as buckets in bounded memory: from the log to ``history.bin``, the socket and the chart.

Bucket widths double as a series grows. So it takes constant memory and a query returns a bounded number of buckets,
however long the run is, and a spike of one step stays visible.
"""

from __future__ import annotations

import bisect
import operator
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

CAPACITY = 4096  # buckets of a series
MAX_CLOCK_SETBACK = 86400.0  # seconds; if time falls by more, the earlier time was wrong, not the clock set back
COLUMNS = {"x": "d", "low": "d", "total": "d", "high": "d", "count": "I", "entries": "I", "offset": "Q"}
_INF, _NAN = float("inf"), float("nan")


Point = tuple[float, float | None, float | None, float | None]  # x, low, mean, high; three times None for a gap


class Bucket(NamedTuple):
    """Consecutive entries of a series. A bucket in which nothing was measured is a gap: its values are None."""

    x: float  # of the last entry: a step, or unix seconds
    low: float | None
    mean: float | None
    high: float | None
    entries: int  # how many, gaps included


class Series:
    """One bounded series of (x, value) pairs. ``x`` never falls; a value of None is a gap.

    A bucket has the x of its last entry; the lowest, sum, highest and number (``count``) of its values; the number of
    its ``entries``, gaps included; and the log ``offset`` of its first entry. In a bucket of gaps only, ``low`` is
    above ``high``.
    """

    def __init__(self, buckets: Iterable[Bucket] = ()) -> None:
        self.width = 1  # entries at which a bucket is full; wider ones came from elsewhere
        self.newest: float | None = None  # the newest value; None if there is none or it is a gap
        self.x, self.low, self.total, self.high = array("d"), array("d"), array("d"), array("d")
        self.count, self.entries = array("I"), array("I")
        self.offset = array("Q")
        self._points: list[Point] = []
        self._current = 0  # so many of ``_points`` are as the columns say
        self.append(buckets)

    def __len__(self) -> int:
        return len(self.x)

    # -- adding

    def append(self, buckets: Iterable[Bucket]) -> None:
        """Add buckets behind those there are."""
        columns = tuple(zip(*buckets, strict=True))
        if not columns:
            return
        xs, lows, means, highs, entries = columns
        self.x.extend(xs)
        self.low.extend(_INF if low is None else low for low in lows)
        self.high.extend(-_INF if high is None else high for high in highs)
        self.total.extend(0.0 if mean is None else mean * n for mean, n in zip(means, entries, strict=True))
        self.count.extend(0 if mean is None else n for mean, n in zip(means, entries, strict=True))
        self.entries.extend(entries)
        self.offset.extend([0] * len(xs))
        self.newest = means[-1]
        while len(self) > CAPACITY:
            self._halve()

    def add(self, x: float, low: float | None, high: float | None, offset: int = 0) -> None:
        x = self._monotonic(x)
        self._current = min(self._current, max(len(self) - 1, 0))
        if not self.entries or self.entries[-1] >= self.width:
            self._open_bucket(offset)
        self.x[-1] = x
        self.entries[-1] += 1
        self.newest = None
        if low is not None and high is not None:
            self.newest = (low + high) / 2
            self._add_to_last(low, high, self.newest, 1)

    def extend(
        self,
        xs: Sequence[float],
        lows: Sequence[float | None],
        highs: Sequence[float | None],
        offsets: Sequence[int],
    ) -> None:
        """Add a chunk of entries at once; ``xs`` must not fall."""
        first, count = 0, len(xs)
        has_gaps = None in lows or None in highs
        self._current = min(self._current, max(len(self) - 1, 0))
        while first < count:
            if not self.entries or self.entries[-1] >= self.width:
                self._open_bucket(offsets[first])
            last = min(count, first + max(self.width - self.entries[-1], 1))
            self.x[-1] = xs[last - 1]
            self.entries[-1] += last - first
            lower: Sequence[Any] = lows[first:last]
            upper: Sequence[Any] = lower if lows is highs else highs[first:last]
            if has_gaps:
                lower, upper = ([v for v in values if v is not None] for values in (lower, upper))
            if lower:
                total = sum(lower) if lows is highs else (sum(lower) + sum(upper)) / 2
                self._add_to_last(min(lower), max(upper), total, len(lower))
            first = last
        if count:
            low, high = lows[-1], highs[-1]
            self.newest = None if low is None or high is None else (low + high) / 2

    def _add_to_last(self, low: float, high: float, total: float, count: int) -> None:
        """Add values to the last bucket, given as their lowest, highest, sum and number."""
        if low < self.low[-1]:
            self.low[-1] = low
        if high > self.high[-1]:
            self.high[-1] = high
        self.total[-1] += total
        self.count[-1] += count

    def _open_bucket(self, offset: int) -> None:
        self._current = min(self._current, len(self))
        if len(self) == CAPACITY:
            self._halve()
            if self.entries[-1] < self.width:
                return
        self.x.append(0.0)
        self.low.append(_INF)
        self.total.append(0.0)
        self.high.append(-_INF)
        self.count.append(0)
        self.entries.append(0)
        self.offset.append(offset)

    def _halve(self) -> None:
        """Merge each pair of buckets into one; with an odd number the last one stays as it is."""
        self.width *= 2
        self._current = 0
        rest = len(self) - len(self) % 2
        merged: dict[str, Any] = {"low": min, "high": max, **dict.fromkeys(("total", "count", "entries"), operator.add)}
        for name, merge in merged.items():
            column = getattr(self, name)
            setattr(self, name, array(column.typecode, map(merge, column[:rest:2], column[1:rest:2])) + column[rest:])
        self.x = self.x[1:rest:2] + self.x[rest:]
        self.offset = self.offset[::2]

    def _monotonic(self, x: float) -> float:
        """Return ``x``, or the last x if the clock was set back."""
        if not self.x or x >= self.x[-1]:
            return x
        if self.x[-1] - x > MAX_CLOCK_SETBACK and (len(self) == 1 or self.x[-2] <= x):
            self.x[-1] = x
            return x
        return self.x[-1]

    def truncate(self, last: float) -> tuple[int, int | None] | None:
        """Remove every bucket with an entry after ``last``.

        Return the log range (begin, end) of the entries up to ``last`` that were removed with their bucket, or None if
        there are none.
        """
        keep = bisect.bisect_right(self.x, last)
        if keep == len(self):
            return None
        reread = None
        if self.entries[keep] > 1:
            reread = (self.offset[keep], self.offset[keep + 1] if keep + 1 < len(self) else None)
        for column in self.columns():
            del column[keep:]
        self._current = min(self._current, keep)
        self.newest = self._mean(keep - 1, keep) if keep else None
        return reread

    def drop_from(self, x: float) -> None:
        """Remove every bucket with an x of ``x`` or more."""
        keep = bisect.bisect_left(self.x, x)
        if keep < len(self):
            self.truncate(self.x[keep - 1] if keep else -_INF)

    def columns(self) -> list[array[Any]]:
        return [getattr(self, name) for name in COLUMNS]

    # -- reading

    @property
    def points(self) -> Sequence[Point]:
        """All buckets as a chart draws them."""
        del self._points[self._current :]
        rows = zip(*(column[self._current :] for column in self.columns()[:5]), strict=True)
        self._points += [(x, low, total / n, high) if n else (x, None, None, None) for x, low, total, high, n in rows]
        self._current = len(self)
        return self._points

    def values(self, downsampled: str = "mean") -> array[float]:
        """Return what stands for each bucket, its mean or its ``last`` value; NaN for a gap.

        Series of which the last value counts, such as time, never fall: it is the highest.
        """
        column = 3 if downsampled == "last" else 2
        return array("d", (_NAN if (value := point[column]) is None else value for point in self.points))

    def buckets(self, count: int, since: float | None = None, until: float | None = None) -> list[Bucket]:
        """Return the buckets with ``since`` <= x <= ``until``, merged so that there are at most ``count``."""
        first = 0 if since is None else bisect.bisect_left(self.x, since)
        last = len(self) if until is None else bisect.bisect_right(self.x, until)
        group = -(-(last - first) // max(1, count)) or 1

        def merged(column: array[Any], merge: Callable[[Iterable[Any]], Any]) -> list[Any]:
            """Return the entries ``first`` to ``last`` of a column, each ``group`` of them as one."""
            found = column[first:last]
            full = len(found) - len(found) % group
            rest = [merge(found[full:])] if full < len(found) else []
            return [*map(merge, zip(*(found[k:full:group] for k in range(group)), strict=True)), *rest]

        rows = zip(
            merged(self.x, max),
            merged(self.low, min),
            merged(self.total, sum),
            merged(self.high, max),
            merged(self.count, sum),
            merged(self.entries, sum),
            strict=True,
        )
        return [
            Bucket(x, low, total / n, high, entries) if n else Bucket(x, None, None, None, entries)
            for x, low, total, high, n, entries in rows
        ]

    def coverage(self) -> tuple[int, int, int] | None:
        """Return first step, last step and the number of distinct steps, for a series over steps."""
        ends = self.ends()
        return None if ends is None else (*ends, sum(self.entries))

    def ends(self) -> tuple[int, int] | None:
        """Return first and last step, for a series over steps."""
        return (int(self.x[0]) - self.entries[0] + 1, int(self.x[-1])) if self.x else None

    def lowest(self) -> float | None:
        """Return the lowest value of a single entry."""
        low = min(self.low, default=_INF)
        return None if low == _INF else low

    def mean(self) -> float | None:
        """Return the mean of all values."""
        return self._mean(0, len(self))

    def _mean(self, begin: int, end: int) -> float | None:
        values = sum(self.count[begin:end])
        return sum(self.total[begin:end]) / values if values else None
