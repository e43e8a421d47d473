"""Keeps the series of a run for charts: min, mean and max in a bounded number of buckets.

Bucket widths double as a run grows. So a series takes constant memory and a query returns a bounded number of points,
however long the run is, and a spike of one step stays visible.

If a restart repeats steps, the latest attempt wins. Each bucket records the log offset of its first value. A restart
truncates the series at a bucket boundary, and only the log range of the bucket that spans the truncation is read again.
"""

from __future__ import annotations

import bisect
import operator
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from engine.events.log import Record, Tail, read_all
from engine.events.marks import Marks
from engine.events.schema import STEP_NUMBERS, TELEMETRY_NUMBERS
from engine.events.step_dedup import StepDedup

CAPACITY = 4096  # buckets of a series
STEP_SERIES = (*STEP_NUMBERS, "t", "tokens")  # t (wall clock) and tokens are x axes of charts
TELEMETRY_SERIES = TELEMETRY_NUMBERS
BY_STEP = (*STEP_SERIES, "val_loss")
SERIES = (*BY_STEP, *TELEMETRY_SERIES)
MAX_CLOCK_SETBACK = 86400.0  # seconds; if time falls by more, the earlier time was wrong, not the clock set back
COLUMNS = {"x": "d", "low": "d", "total": "d", "high": "d", "count": "I", "entries": "I", "offset": "Q"}
_ABSENT = object()
_INF = float("inf")


class Series:
    """One bounded series of (x, value) pairs. ``x`` never falls; a value of None is a gap.

    A bucket has the x of its last entry; the lowest, sum, highest and number (``count``) of its values; the number of
    its ``entries``, gaps included; and the log ``offset`` of its first entry. In a bucket of gaps only, ``low`` is
    above ``high``.
    """

    def __init__(self) -> None:
        self.width = 1  # entries of a full bucket
        self.x, self.low, self.total, self.high = array("d"), array("d"), array("d"), array("d")
        self.count, self.entries = array("I"), array("I")
        self.offset = array("Q")

    def __len__(self) -> int:
        return len(self.x)

    def add(self, x: float, low: float | None, high: float | None, offset: int = 0) -> None:
        self.extend([self._monotonic(x)], [low], [high], [offset])

    def extend(
        self,
        xs: Sequence[float],
        lows: Sequence[float | None],
        highs: Sequence[float | None],
        offsets: Sequence[int],
    ) -> None:
        """Add a chunk of entries at once; ``xs`` must not fall."""
        first = 0
        while first < len(xs):
            if not self.entries or self.entries[-1] >= self.width:
                self._open_bucket(offsets[first])
            last = min(len(xs), first + self.width - self.entries[-1])
            self.x[-1] = xs[last - 1]
            self.entries[-1] += last - first
            lower = [v for v in lows[first:last] if v is not None]
            if lower:
                upper = lower if lows is highs else [v for v in highs[first:last] if v is not None]
                self.low[-1] = min(self.low[-1], min(lower))
                self.high[-1] = max(self.high[-1], max(upper))
                self.total[-1] += (sum(lower) + sum(upper)) / 2
                self.count[-1] += len(lower)
            first = last

    def _open_bucket(self, offset: int) -> None:
        if len(self) == CAPACITY:
            self._halve()
            if self.entries[-1] < self.width:
                return
        for column, value in zip(self.columns(), (0.0, _INF, 0.0, -_INF, 0, 0, offset), strict=True):
            column.append(value)

    def _halve(self) -> None:
        """Merge each pair of buckets into one; with an odd number the last one stays as it is."""
        self.width *= 2
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
        return reread

    def columns(self) -> list[array[Any]]:
        return [getattr(self, name) for name in COLUMNS]

    def points(self, count: int, since: float | None = None, until: float | None = None) -> list[list[Any]]:
        """Return at most ``count`` points ``[x, min, mean, max]`` with ``since`` <= x <= ``until``."""
        first = 0 if since is None else bisect.bisect_left(self.x, since)
        last = len(self) if until is None else bisect.bisect_right(self.x, until)
        group = -(-(last - first) // max(1, count)) or 1
        points: list[list[Any]] = []
        for begin in range(first, last, group):
            end = min(begin + group, last)
            x, values = _shortest(self.x[end - 1]), sum(self.count[begin:end])
            if values:
                low, high = min(self.low[begin:end]), max(self.high[begin:end])
                points.append([x, _shortest(low), _shortest(sum(self.total[begin:end]) / values), _shortest(high)])
            else:
                points.append([x, None, None, None])
        return points


class History:
    """The series ``names`` of one run, built from the records of its log at ``path``."""

    def __init__(self, path: Path, names: Iterable[str] = SERIES) -> None:
        self.path = path
        self.series: dict[str, Series] = {name: Series() for name in names}
        self.dedup = StepDedup()
        self.marks = Marks()
        self._live_telemetry = False

    def add_records(self, records: Iterable[tuple[int, Record]]) -> None:
        """Add the next (offset, record) pairs of the log."""
        steps: list[tuple[int, Record]] = []
        for offset, record in records:
            kind = record["kind"]
            if kind == "telemetry":
                if not self._live_telemetry:
                    self._add_telemetry(record)
                continue
            if kind != "step":
                self.marks.add(record, max(self.dedup.last, 0))
            if kind not in ("step", "val", "start"):
                continue
            last_valid, accepted = self.dedup.accept(record)
            if last_valid is not None:
                self._add_steps(steps)
                steps = []
                self._truncate(last_valid, offset)
            if accepted and kind == "step":
                steps.append((offset, record))
            elif accepted and "val_loss" in self.series:
                self.series["val_loss"].add(record["step"], record.get("loss"), record.get("loss"), offset)
        self._add_steps(steps)

    def sample(self, record: Record) -> None:
        """Add live telemetry, measured once a second; from then on the telemetry records of the log are ignored."""
        self._live_telemetry = True
        self._add_telemetry(record)

    def _add_telemetry(self, record: Record) -> None:
        for name in self._known(TELEMETRY_SERIES):
            value = record.get(name)
            if value is not None:
                low, high = value if isinstance(value, list) else (value, value)
                self.series[name].add(record["t"], low, high)

    def _add_steps(self, steps: list[tuple[int, Record]], names: Iterable[str] = STEP_SERIES) -> None:
        """Add step records, whose steps rise."""
        for name in self._known(names):
            values = [record.get(name, _ABSENT) for _, record in steps]
            having = steps
            if _ABSENT in values:
                having = [pair for pair, value in zip(steps, values, strict=True) if value is not _ABSENT]
                values = [value for value in values if value is not _ABSENT]
            offsets = [offset for offset, _ in having]
            self.series[name].extend([r["step"] for _, r in having], values, values, offsets)

    def _truncate(self, last: int, end: int) -> None:
        """Remove every step after ``last``; ``end`` is the log offset of the record that calls for it."""
        ranges: dict[tuple[int, int], list[str]] = {}
        for name in self._known(BY_STEP):
            reread = self.series[name].truncate(last)
            if reread is not None:
                ranges.setdefault((reread[0], reread[1] or end), []).append(name)
        for (begin, stop), names in ranges.items():
            steps, vals = self._read_valid(begin, stop, last)
            self._add_steps(steps, [name for name in names if name != "val_loss"])
            if "val_loss" in names:
                for offset, record in vals:
                    self.series["val_loss"].add(record["step"], record.get("loss"), record.get("loss"), offset)

    def _read_valid(self, begin: int, end: int, last: int) -> tuple[list[tuple[int, Record]], list[tuple[int, Record]]]:
        """Return the step and the val records up to step ``last`` in a log range, without repeated steps."""
        dedup = StepDedup()
        kept: dict[str, list[tuple[int, Record]]] = {"step": [], "val": []}
        for offset, record in read_all(self.path, begin):
            if offset >= end:
                break
            if record["kind"] not in ("step", "val", "start"):
                continue
            last_valid, accepted = dedup.accept(record)
            if last_valid is not None:
                for records in kept.values():
                    while records and records[-1][1]["step"] > last_valid:
                        records.pop()
            if accepted:
                kept[record["kind"]].append((offset, record))
        steps, vals = ([pair for pair in records if pair[1]["step"] <= last] for records in kept.values())
        return steps, vals

    def _known(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name in self.series]

    def query(
        self, names: list[str], points: int, since: float | None = None, until: float | None = None
    ) -> dict[str, list[list[Any]]]:
        """Return at most ``points`` points of each known series, as ``Series.points``."""
        return {name: self.series[name].points(points, since, until) for name in names if name in self.series}

    def log_range(self, since: float | None, until: float | None) -> tuple[int, int | None]:
        """Return the log range (begin, end) of the steps ``since`` to ``until``; None is the end of the log."""
        steps = self.series["loss"]
        first = 0 if since is None else bisect.bisect_left(steps.x, since)
        after = len(steps) if until is None else bisect.bisect_left(steps.x, until) + 1
        end = steps.offset[after] if after < len(steps) else None
        return (steps.offset[first] if first < len(steps) else 0), end


def read_range(path: Path, names: Iterable[str], begin: int, end: int, since: float, until: float) -> History:
    """Build the series ``names`` of the steps ``since`` to ``until`` from the log range ``begin`` to ``end``."""

    def within(offset: int, record: Record) -> bool:
        return offset < end and (record["kind"] not in ("step", "val") or since <= record["step"] <= until)

    history = History(path, names)
    tail = Tail(path, begin)
    try:
        while records := tail.poll():
            history.add_records(pair for pair in records if within(*pair))
            if tail.offset >= end:
                break
    finally:
        tail.close()
    return history


def _shortest(value: float) -> float:
    """Return a whole number as an int: JSON then omits its ``.0``."""
    return int(value) if value.is_integer() else value
