"""Keeps the newest events of each kind with their step, as marks for charts.

So whoever opens a run knows its latest edits, restarts and checkpoints without reading its log.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from engine.events.log import Record

MAX_PER_KIND = 1000
# kind → fields kept besides kind, step and time
_FIELDS: dict[str, tuple[str, ...]] = {
    "edit": ("changed", "by"),
    "oom": ("where", "wanted", "action"),
    "checkpoint": (),
    "start": ("attempt",),
    "rewind": (),
    "alert": ("what",),
    "memory": ("parts", "measured", "micro", "context"),
}
_LIMITS = {"memory": 1}  # only the current forecast is of use
_MAX_LENGTH, _MAX_DEPTH = 100, 3  # of a value: the log may hold anything, marks must stay small


class Marks:
    """Marks ``{"kind", "step", "t", …}``, grouped by kind, each group in the order of the log."""

    def __init__(self) -> None:
        self._by_kind = {kind: deque[Record](maxlen=_LIMITS.get(kind, MAX_PER_KIND)) for kind in _FIELDS}

    def add(self, record: Record, step: int) -> Record | None:
        """Add the mark of ``record`` and return it; None if this record gets no mark.

        ``step`` is the last accepted step; records that have a step of their own ignore it.
        """
        kind = record["kind"]
        if kind not in _FIELDS or not _has_mark(record):
            return None
        if kind in ("edit", "checkpoint"):
            step = record.get("step") or 0
        elif kind == "start":
            step = record.get("resumed_from") or 0
        mark = {"kind": kind, "step": step, "t": record.get("t")}
        mark |= {name: _bounded(record[name]) for name in _FIELDS[kind] if name in record}
        self._by_kind[kind].append(mark)
        return mark

    def to_list(self) -> list[Record]:
        """Return all marks, grouped by kind."""
        return [mark for marks in self._by_kind.values() for mark in marks]

    def newest(self, kind: str) -> Record | None:
        return self._by_kind[kind][-1] if self._by_kind[kind] else None

    def load(self, marks: list[dict[str, Any]]) -> None:
        """Replace all marks with what ``to_list`` returned."""
        for kept in self._by_kind.values():
            kept.clear()
        for mark in marks:
            if mark["kind"] in self._by_kind:
                self._by_kind[mark["kind"]].append(mark)


def _has_mark(record: Record) -> bool:
    """Return whether ``record`` changed the run: not a refused edit, a failed checkpoint, or the first start.

    Of the alerts only ``nan`` belongs to a step.
    """
    kind = record["kind"]
    if kind in ("edit", "checkpoint"):
        return bool(record.get("ok"))
    if kind == "alert":
        return record.get("what") == "nan"
    return kind != "start" or (record.get("attempt") or 1) > 1


def _bounded(value: Any, depth: int = 0) -> Any:
    """Return ``value`` cut to a bounded size, without numbers that JSON cannot hold."""
    if isinstance(value, str):
        return value[:_MAX_LENGTH]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict) and depth < _MAX_DEPTH:
        return {key[:_MAX_LENGTH]: _bounded(inner, depth + 1) for key, inner in list(value.items())[:_MAX_LENGTH]}
    if isinstance(value, list) and depth < _MAX_DEPTH:
        return [_bounded(inner, depth + 1) for inner in value[:_MAX_LENGTH]]
    return value if isinstance(value, int) and abs(value) < 1 << 63 else None
