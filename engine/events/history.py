"""Series for charts: min, mean and max of a bounded number of buckets whose width doubles as a run grows.

However long a run is, a series costs the same memory and an answer the same bytes, and a one-step spike stays visible.

Where a restart repeats steps the latest attempt wins. A bucket knows where in the log it begins, so the series are cut
back between two buckets, and only the log behind the one that the cut goes through is read again.
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

CAPACITY = 4096
STEP_SERIES = (*STEP_NUMBERS, "t", "tokens")  # when a step was done and what had been seen: other axes than steps
TELEMETRY_SERIES = TELEMETRY_NUMBERS
BY_STEP = (*STEP_SERIES, "val_loss")
SERIES = (*BY_STEP, *TELEMETRY_SERIES)
WRONG_CLOCK = 86400.0  # seconds; a clock that was further ahead than this was wrong, less is a clock set back
COLUMNS = {"x": "d", "low": "d", "total": "d", "high": "d", "values": "I", "held": "I", "at": "Q"}
_ABSENT = object()
_INF = float("inf")


class Series:
    """One bounded series of (x, value) with x never falling; a value of None is a gap.

    A bucket is the x of its last value, lowest, sum, highest and number of its values that are no gaps, the number of
    all it holds, and the log offset of its first one. A bucket of gaps has its lowest above its highest.
    """

    def __init__(self) -> None:
        self.width = 1
        self.x, self.low, self.total, self.high = array("d"), array("d"), array("d"), array("d")
        self.values, self.held = array("I"), array("I")
        self.at = array("Q")

    def __len__(self) -> int:
        return len(self.x)

    def add(self, x: float, low: float | None, high: float | None, at: int = 0) -> None:
        self.extend([self._after(x)], [low], [high], [at])

    def extend(
        self,
        xs: Sequence[float],
        lows: Sequence[float | None],
        highs: Sequence[float | None],
        ats: Sequence[int],
    ) -> None:
        """Many at once, for whole chunks of a log: ``xs`` must not fall."""
        first = 0
        while first < len(xs):
            if not self.held or self.held[-1] >= self.width:
                self._open(ats[first])
            last = min(len(xs), first + self.width - self.held[-1])
            self.x[-1] = xs[last - 1]
            self.held[-1] += last - first
            known = [v for v in lows[first:last] if v is not None]
            if known:
                upper = known if lows is highs else [v for v in highs[first:last] if v is not None]
                self.low[-1] = min(self.low[-1], min(known))
                self.high[-1] = max(self.high[-1], max(upper))
                self.total[-1] += (sum(known) + sum(upper)) / 2
                self.values[-1] += len(known)
            first = last

    def _open(self, at: int) -> None:
        if len(self) == CAPACITY:
            self._halve()
            if self.held[-1] < self.width:
                return
        for column, value in zip(self.columns(), (0.0, _INF, 0.0, -_INF, 0, 0, at), strict=True):
            column.append(value)

    def _halve(self) -> None:
        """Two buckets become one; the last stays alone where their number is odd."""
        self.width *= 2
        rest = len(self) - len(self) % 2
        joined: dict[str, Any] = {"low": min, "high": max, **dict.fromkeys(("total", "values", "held"), operator.add)}
        for name, join in joined.items():
            column = getattr(self, name)
            setattr(self, name, array(column.typecode, map(join, column[:rest:2], column[1:rest:2])) + column[rest:])
        self.x = self.x[1:rest:2] + self.x[rest:]
        self.at = self.at[::2]

    def _after(self, x: float) -> float:
        """``x``, or the last one where a clock was set back."""
        if not self.x or x >= self.x[-1]:
            return x
        if self.x[-1] - x > WRONG_CLOCK and (len(self) == 1 or self.x[-2] <= x):
            self.x[-1] = x
            return x
        return self.x[-1]

    def cut(self, last: float) -> tuple[int, int | None] | None:
        """Take back what is behind ``last``, and the whole bucket the cut goes through.

        Returns the part of the log, from and to, that tells what of that bucket still holds; None where nothing does.
        """
        keep = bisect.bisect_right(self.x, last)
        if keep == len(self):
            return None
        again = None
        if self.held[keep] > 1:
            again = (self.at[keep], self.at[keep + 1] if keep + 1 < len(self) else None)
        for column in self.columns():
            del column[keep:]
        return again

    def columns(self) -> list[array[Any]]:
        return [getattr(self, name) for name in COLUMNS]

    def points(self, count: int, since: float | None = None, until: float | None = None) -> list[list[Any]]:
        """At most ``count`` of ``[x, min, mean, max]`` between ``since`` and ``until`` (both within)."""
        first = 0 if since is None else bisect.bisect_left(self.x, since)
        last = len(self) if until is None else bisect.bisect_right(self.x, until)
        group = -(-(last - first) // max(1, count)) or 1
        answer: list[list[Any]] = []
        for begin in range(first, last, group):
            end = min(begin + group, last)
            x, values = _plain(self.x[end - 1]), sum(self.values[begin:end])
            if values:
                low, high = min(self.low[begin:end]), max(self.high[begin:end])
                answer.append([x, _plain(low), _plain(sum(self.total[begin:end]) / values), _plain(high)])
            else:
                answer.append([x, None, None, None])
        return answer


class History:
    """The series ``names`` of one run, fed by the records of its log at ``path``."""

    def __init__(self, path: Path, names: Iterable[str] = SERIES) -> None:
        self.path = path
        self.series: dict[str, Series] = {name: Series() for name in names}
        self.dedup = StepDedup()
        self.marks = Marks()
        self._sampled = False

    def add_records(self, records: Iterable[tuple[int, Record]]) -> None:
        """Take in what the log says next, each with its offset."""
        steps: list[tuple[int, Record]] = []
        for at, record in records:
            kind = record["kind"]
            if kind == "telemetry":
                if not self._sampled:
                    self._telemetry(record)
                continue
            if kind != "step":
                self.marks.add(record, max(self.dedup.last, 0))
            if kind not in ("step", "val", "start"):
                continue
            cut, counts = self.dedup.accept(record)
            if cut is not None:
                self._steps(steps)
                steps = []
                self._cut(cut, at)
            if counts and kind == "step":
                steps.append((at, record))
            elif counts and "val_loss" in self.series:
                self.series["val_loss"].add(record["step"], record.get("loss"), record.get("loss"), at)
        self._steps(steps)

    def sample(self, record: Record) -> None:
        """Take in telemetry as it is measured, once a second; what the log says of it later is not counted again."""
        self._sampled = True
        self._telemetry(record)

    def _telemetry(self, record: Record) -> None:
        for name in self._of(TELEMETRY_SERIES):
            value = record.get(name)
            if value is not None:
                low, high = value if isinstance(value, list) else (value, value)
                self.series[name].add(record["t"], low, high)

    def _steps(self, steps: list[tuple[int, Record]], names: Iterable[str] = STEP_SERIES) -> None:
        """Add step records, whose steps rise."""
        for name in self._of(names):
            values = [record.get(name, _ABSENT) for _, record in steps]
            there = steps
            if _ABSENT in values:
                there = [pair for pair, value in zip(steps, values, strict=True) if value is not _ABSENT]
                values = [value for value in values if value is not _ABSENT]
            self.series[name].extend([r["step"] for _, r in there], values, values, [at for at, _ in there])

    def _cut(self, last: int, end: int) -> None:
        """Take back every step behind ``last``; ``end`` is where the log says so."""
        again: dict[tuple[int, int], list[str]] = {}
        for name in self._of(BY_STEP):
            part = self.series[name].cut(last)
            if part is not None:
                again.setdefault((part[0], part[1] or end), []).append(name)
        for (begin, end_), names in again.items():
            steps, vals = self._still_true(begin, end_, last)
            self._steps(steps, [name for name in names if name != "val_loss"])
            if "val_loss" in names:
                for at, record in vals:
                    self.series["val_loss"].add(record["step"], record.get("loss"), record.get("loss"), at)

    def _still_true(self, begin: int, end: int, last: int) -> tuple[list[tuple[int, Record]], list[tuple[int, Record]]]:
        """The step and the val records between two offsets that hold, up to step ``last``."""
        order = StepDedup()
        kept: dict[str, list[tuple[int, Record]]] = {"step": [], "val": []}
        for at, record in read_all(self.path, begin):
            if at >= end:
                break
            if record["kind"] not in ("step", "val", "start"):
                continue
            cut, counts = order.accept(record)
            if cut is not None:
                for records in kept.values():
                    while records and records[-1][1]["step"] > cut:
                        records.pop()
            if counts:
                kept[record["kind"]].append((at, record))
        steps, vals = ([pair for pair in records if pair[1]["step"] <= last] for records in kept.values())
        return steps, vals

    def _of(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name in self.series]

    def answer(
        self, names: list[str], points: int, since: float | None = None, until: float | None = None
    ) -> dict[str, list[list[Any]]]:
        return {name: self.series[name].points(points, since, until) for name in names if name in self.series}

    def part(self, since: float | None, until: float | None) -> tuple[int, int | None]:
        """From where to where (None: its end) the log tells of the steps between ``since`` and ``until``."""
        steps = self.series["loss"]
        first = 0 if since is None else bisect.bisect_left(steps.x, since)
        behind = len(steps) if until is None else bisect.bisect_left(steps.x, until) + 1
        end = steps.at[behind] if behind < len(steps) else None
        return (steps.at[first] if first < len(steps) else 0), end


def read_part(path: Path, names: Iterable[str], begin: int, end: int, since: float, until: float) -> History:
    """The series ``names`` of the steps ``since`` to ``until`` that one part of the log tells of, and no others."""

    def within(at: int, record: Record) -> bool:
        return at < end and (record["kind"] not in ("step", "val") or since <= record["step"] <= until)

    found = History(path, names)
    tail = Tail(path, begin)
    try:
        while records := tail.poll():
            found.add_records(pair for pair in records if within(*pair))
            if tail.offset >= end:
                break
    finally:
        tail.close()
    return found


def _plain(value: float) -> float:
    """A whole number without its ``.0``: an answer is sent as text."""
    return int(value) if value.is_integer() else value
