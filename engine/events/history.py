"""Keeps the series of a run for charts, built from the records of its log.

If a restart repeats steps, the latest attempt wins. Each bucket records the log offset of its first value. A restart
truncates the series at a bucket boundary, and only the log range of the bucket that spans the truncation is read again.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from operator import attrgetter
from pathlib import Path

import msgspec

from engine.events.log import Tail, read_all
from engine.events.marks import Marks
from engine.events.metrics import BY_STEP, SERIES, STEP_SERIES, TELEMETRY_SERIES, VAL_FIELDS, VAL_LOSS
from engine.events.series import Bucket, Series
from engine.events.step_dedup import StepDedup
from engine.events.types import Eval, Event, Start, Step, Telemetry, Val
from engine.events.wire import HistoryAnswer

_VALUE = {name: attrgetter(name) for name in (*STEP_SERIES, "step")}


class History:
    """The series ``names`` of one run, built from the records of its log at ``path``."""

    def __init__(self, path: Path, names: Iterable[str] = SERIES) -> None:
        self.path = path
        self.series: dict[str, Series] = {name: Series() for name in names}
        self.dedup = StepDedup()
        self.marks = Marks()
        self._live_telemetry = False

    def add_events(self, events: Iterable[tuple[int, Event]]) -> None:
        """Add the next (offset, event) pairs of the log."""
        steps: list[Step] = []
        offsets: list[int] = []
        for offset, event in events:
            if not isinstance(event, Step):
                if isinstance(event, Telemetry):
                    if not self._live_telemetry:
                        self._add_telemetry(event)
                    continue
                self.marks.add(event, max(self.dedup.last, 0))
                if not isinstance(event, Val | Eval | Start):
                    continue
            last_valid, accepted = self.dedup.accept(event)
            if last_valid is not None:
                self._add_steps(steps, offsets)
                steps, offsets = [], []
                self._truncate(last_valid, offset)
            if accepted and isinstance(event, Step):
                steps.append(event)
                offsets.append(offset)
            elif accepted and isinstance(event, Val | Eval):
                self._add_val(event, offset)
        self._add_steps(steps, offsets)

    def sample(self, sample: Telemetry) -> None:
        """Add live telemetry, measured once a second; from then on the telemetry records of the log are ignored."""
        self._live_telemetry = True
        self._add_telemetry(sample)

    def _add_telemetry(self, event: Telemetry) -> None:
        for name in self._known(TELEMETRY_SERIES):
            value = getattr(event, name)
            if value is not None:
                low, high = value if isinstance(value, list) else (value, value)
                self.series[name].add(event.t, low, high)

    def _add_val(self, event: Val | Eval, offset: int, names: Iterable[str] = VAL_FIELDS) -> None:
        """Add a val or eval record. A loss of None was not finite; another metric was not measured."""
        for name in self._known(names):
            value = getattr(event, VAL_FIELDS[name], None)
            if value is not None or (name == VAL_LOSS and isinstance(event, Val)):
                self.series[name].add(event.step, value, value, offset)

    def _add_steps(self, steps: list[Step], offsets: list[int], names: Iterable[str] = STEP_SERIES) -> None:
        """Add step records, whose steps rise. A loss of None was not finite; another metric was not measured."""
        xs = list(map(_VALUE["step"], steps))
        for name in self._known(names):
            values = list(map(_VALUE[name], steps))
            if name == "loss" or None not in values:
                self.series[name].extend(xs, values, values, offsets)
            elif values.count(None) < len(values):
                having = [i for i, value in enumerate(values) if value is not None]
                values = [values[i] for i in having]
                self.series[name].extend([xs[i] for i in having], values, values, [offsets[i] for i in having])

    def _truncate(self, last: int, end: int) -> None:
        """Remove every step after ``last``; ``end`` is the log offset of the record that calls for it."""
        ranges: dict[tuple[int, int], list[str]] = {}
        for name in self._known(BY_STEP):
            reread = self.series[name].truncate(last)
            if reread is not None:
                ranges.setdefault((reread[0], reread[1] or end), []).append(name)
        for (begin, stop), names in ranges.items():
            steps, vals = self._read_valid(begin, stop, last)
            names_by_step = [name for name in names if name not in VAL_FIELDS]
            self._add_steps([step for _, step in steps], [offset for offset, _ in steps], names_by_step)
            for offset, val in vals:
                self._add_val(val, offset, [name for name in names if name in VAL_FIELDS])

    def _read_valid(
        self, begin: int, end: int, last: int
    ) -> tuple[list[tuple[int, Step]], list[tuple[int, Val | Eval]]]:
        """Return the step and the val records up to step ``last`` in a log range, without repeated steps."""
        dedup = StepDedup()
        steps: list[tuple[int, Step]] = []
        vals: list[tuple[int, Val | Eval]] = []
        for offset, event in read_all(self.path, begin):
            if offset >= end:
                break
            if not isinstance(event, Step | Val | Eval | Start):
                continue
            last_valid, accepted = dedup.accept(event)
            if last_valid is not None:
                while steps and steps[-1][1].step > last_valid:
                    steps.pop()
                while vals and vals[-1][1].step > last_valid:
                    vals.pop()
            if accepted and isinstance(event, Step):
                steps.append((offset, event))
            elif accepted and isinstance(event, Val | Eval):
                vals.append((offset, event))
        return [pair for pair in steps if pair[1].step <= last], [pair for pair in vals if pair[1].step <= last]

    def _known(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name in self.series]

    def query(
        self, names: list[str], points: int, since: float | None = None, until: float | None = None
    ) -> dict[str, list[Bucket]]:
        """Return at most ``points`` buckets of each known series, as ``Series.buckets``."""
        return {name: self.series[name].buckets(points, since, until) for name in names if name in self.series}

    def answer(
        self, at: int, names: list[str], points: int, since: float | None, until: float | None, marks: bool
    ) -> HistoryAnswer:
        """Return the answer to a ``history`` request; ``at``: the offset of the log up to which this history goes."""
        series, newest = self.query(names, points, since, until), {}
        if until is None:
            newest = {name: value for name in series if (value := self.series[name].newest) is not None}
        found = HistoryAnswer(at, series, self.log_range(since, until), newest=newest)
        if not marks:
            return found
        return msgspec.structs.replace(found, marks=self.marks.to_list(), memory=self.marks.memory)

    def log_range(self, since: float | None, until: float | None) -> tuple[int, int | None]:
        """Return the log range (begin, end) of the steps ``since`` to ``until``; None is the end of the log."""
        steps = self.series["loss"]
        first = 0 if since is None else bisect.bisect_left(steps.x, since)
        after = len(steps) if until is None else bisect.bisect_left(steps.x, until) + 1
        end = steps.offset[after] if after < len(steps) else None
        return (steps.offset[first] if first < len(steps) else 0), end


def read_range(path: Path, names: Iterable[str], begin: int, end: int, since: float, until: float) -> History:
    """Build the series ``names`` of the steps ``since`` to ``until`` from the log range ``begin`` to ``end``."""

    def within(offset: int, event: Event) -> bool:
        return offset < end and (not isinstance(event, Step | Val | Eval) or since <= event.step <= until)

    history = History(path, names)
    tail = Tail(path, begin)
    try:
        while events := tail.poll():
            history.add_events(pair for pair in events if within(*pair))
            if tail.offset >= end:
                break
    finally:
        tail.close()
    return history
