"""What happened to a run, told by step, for the marks on its charts: of each kind the newest few.

However long a run is, whoever opens it knows of its last edits, restarts and checkpoints without reading its log.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from engine.events.log import Record

KEPT = 1000
# kind → what of its record is kept besides kind, step and time
_FIELDS: dict[str, tuple[str, ...]] = {
    "edit": ("changed", "by"),
    "oom": ("where", "wanted", "action"),
    "checkpoint": (),
    "start": ("attempt",),
    "rewind": (),
    "alert": ("what",),
    "memory": ("parts", "measured", "micro", "context"),
}
_KEPT = {"memory": 1}  # what the run should take now
_LENGTH, _DEPTH = 100, 3  # of a value from the log: a bound for what any writer may put there


class Marks:
    """Marks in the order of the log: ``{"kind", "step", "t", …}``."""

    def __init__(self) -> None:
        self._of = {kind: deque[Record](maxlen=_KEPT.get(kind, KEPT)) for kind in _FIELDS}

    def add(self, record: Record, step: int) -> Record | None:
        """Take in a record; its mark, where it is worth one. ``step`` is the last step that counts so far."""
        kind = record["kind"]
        if kind not in _FIELDS or not _worth_a_mark(record):
            return None
        if kind in ("edit", "checkpoint"):
            step = record.get("step") or 0
        elif kind == "start":
            step = record.get("resumed_from") or 0
        mark = {"kind": kind, "step": step, "t": record.get("t")}
        mark |= {name: _brief(record[name]) for name in _FIELDS[kind] if name in record}
        self._of[kind].append(mark)
        return mark

    def to_list(self) -> list[Record]:
        """All of them, each kind in order."""
        return [mark for kept in self._of.values() for mark in kept]

    def newest(self, kind: str) -> Record | None:
        return self._of[kind][-1] if self._of[kind] else None

    def load(self, marks: list[dict[str, Any]]) -> None:
        """Take what ``to_list`` gave in place of what is there."""
        for kept in self._of.values():
            kept.clear()
        for mark in marks:
            if mark["kind"] in self._of:
                self._of[mark["kind"]].append(mark)


def _worth_a_mark(record: Record) -> bool:
    """Refused edits and failed checkpoints changed nothing, and of the alerts only a bad number belongs to a step."""
    kind = record["kind"]
    if kind in ("edit", "checkpoint"):
        return bool(record.get("ok"))
    if kind == "alert":
        return record.get("what") == "nan"
    return kind != "start" or (record.get("attempt") or 1) > 1


def _brief(value: Any, depth: int = 0) -> Any:
    """``value`` as far as JSON and a bounded memory can hold it."""
    if isinstance(value, str):
        return value[:_LENGTH]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict) and depth < _DEPTH:
        return {key[:_LENGTH]: _brief(inner, depth + 1) for key, inner in list(value.items())[:_LENGTH]}
    if isinstance(value, list) and depth < _DEPTH:
        return [_brief(inner, depth + 1) for inner in value[:_LENGTH]]
    return value if isinstance(value, int) and abs(value) < 1 << 63 else None
