"""Series for charts: min, mean and max of a bounded number of buckets whose width doubles as a run grows.

However long a run is, a series costs the same memory and an answer the same bytes, and a one-step spike stays visible.
"""

from __future__ import annotations

import bisect
from pathlib import Path
from typing import Any

from engine.jobs.log import Record, read_all

CAPACITY = 4096
STEP_SERIES = (
    *("loss", "lr", "grad_norm", "tok_s", "step_s", "data_s", "device_peak", "host_states", "mfu"),
    *("unified_active", "unified_cache", "unified_peak", "unified_limit"),
)
TELEMETRY_SERIES = (
    *("device_used", "device_total", "device_util", "power_w", "temp_c"),
    *("rss", "ram_used", "ram_total", "swap", "disk_free"),
)
SERIES = (*STEP_SERIES, "val_loss", *TELEMETRY_SERIES)

Bucket = list[Any]  # [x of its last value, min, sum, max, count, raw values held]


class Series:
    """One bounded series of (x, value) with x never falling; a value of None is a gap."""

    def __init__(self) -> None:
        self.width = 1
        self.buckets: list[Bucket] = []

    def add(self, x: float, low: float | None, high: float | None) -> None:
        buckets = self.buckets
        if buckets and buckets[-1][5] < self.width:
            _merge(buckets[-1], _bucket(x, low, high))
            return
        buckets.append(_bucket(x, low, high))
        if len(buckets) > CAPACITY:
            self.width *= 2
            for i in range(0, len(buckets) - 1, 2):
                _merge(buckets[i], buckets[i + 1])
            self.buckets = buckets[::2]

    def points(self, count: int, since: float | None = None, until: float | None = None) -> list[list[Any]]:
        """At most ``count`` of ``[x, min, mean, max]`` between ``since`` and ``until`` (both within)."""
        first = 0 if since is None else bisect.bisect_left(self.buckets, since, key=lambda b: b[0])
        last = len(self.buckets) if until is None else bisect.bisect_right(self.buckets, until, key=lambda b: b[0])
        chosen = self.buckets[first:last]
        group = -(-len(chosen) // max(1, count)) or 1
        answer = []
        for start in range(0, len(chosen), group):
            bucket = list(chosen[start])
            for other in chosen[start + 1 : start + group]:
                _merge(bucket, other)
            x, low, total, high, values, _ = bucket
            answer.append([x, low, total / values if values else None, high])
        return answer


class History:
    """All series of one job, fed record by record."""

    def __init__(self) -> None:
        self.series: dict[str, Series] = {name: Series() for name in SERIES}
        self.last_step = -1  # validation comes before the first step, at step 0

    def add(self, record: Record) -> bool:
        """Take a record in; False when it makes earlier points untrue, so that the log has to be read again."""
        kind = record["kind"]
        if kind == "step":
            self.last_step = step = int(record["step"])
            for name in STEP_SERIES:
                if name in record:
                    self.series[name].add(step, record[name], record[name])
        elif kind == "val":
            self.last_step = step = int(record["step"])
            self.series["val_loss"].add(step, record.get("loss"), record.get("loss"))
        elif kind == "telemetry":
            for name in TELEMETRY_SERIES:
                value = record.get(name)
                if value is not None:
                    low, high = value if isinstance(value, list) else (value, value)
                    self.series[name].add(record["t"], low, high)
        elif kind == "start":
            return _kept(record) >= self.last_step
        return True

    def answer(
        self, names: list[str], points: int, since: float | None = None, until: float | None = None
    ) -> dict[str, list[list[Any]]]:
        return {name: self.series[name].points(points, since, until) for name in names if name in self.series}

    @classmethod
    def from_log(cls, path: Path, until: int | None = None) -> tuple[History, int]:
        """The history of every record before offset ``until``, and an offset behind the last one read.

        Where a restart repeated steps the latest attempt wins: a step counts only if no later attempt began at or
        before it. Two passes keep the memory bounded.
        """
        resumed: list[int] = []
        end = 0
        for at, record in read_all(path):
            if until is not None and at >= until:
                break
            end = at + 1  # within the line: what is left of it parses as no record
            if record["kind"] == "start":
                resumed.append(_kept(record))
        limits: list[float] = [float("inf")] * (len(resumed) + 1)
        for i in range(len(resumed) - 1, -1, -1):
            limits[i] = min(limits[i + 1], resumed[i])
        history, begun = cls(), 0
        for at, record in read_all(path):
            if at >= end:
                break  # it came between the two passes
            if record["kind"] == "start":
                begun += 1
            elif record["kind"] not in ("step", "val") or int(record["step"]) <= limits[begun]:
                history.add(record)
        return history, end


def _kept(start: Record) -> int:
    """The last step of earlier attempts that still holds after a ``start``; -1 where it began from nothing."""
    resumed_from = start.get("resumed_from")
    return -1 if resumed_from is None else int(resumed_from)


def _bucket(x: float, low: float | None, high: float | None) -> Bucket:
    if low is None or high is None:
        return [x, None, 0.0, None, 0, 1]
    return [x, low, (low + high) / 2, high, 1, 1]


def _merge(into: Bucket, other: Bucket) -> None:
    into[0] = other[0]
    if other[4]:
        into[1] = other[1] if into[1] is None else min(into[1], other[1])
        into[3] = other[3] if into[3] is None else max(into[3], other[3])
    into[2] += other[2]
    into[4] += other[4]
    into[5] += other[5]
