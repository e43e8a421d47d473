"""Keeps the newest events of each kind with their step, as marks for charts.

So whoever opens a run knows its latest edits, restarts and checkpoints without reading its log.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from engine.events.numbers import Count, Time
from engine.events.types import Alert, Checkpoint, Edit, Event, Memory, Oom, Rewind, Start

MAX_PER_KIND = 1000
KINDS = ("edit", "oom", "checkpoint", "start", "rewind", "alert")
_MAX_LENGTH = 100  # of a text and of a list: the log may hold anything, marks must stay small


class Mark(Struct, frozen=True, omit_defaults=True):
    """An event that changed the run, at the step where a chart shows it."""

    kind: str
    step: Count
    t: Time
    changed: dict[str, tuple[Any, Any]] = {}  # of an edit
    where: str | None = None  # of an out-of-memory error
    attempt: Count = 0  # that a start began


class Marks:
    """Marks grouped by kind, each group in the order of the log, and the newest ``memory`` record."""

    def __init__(self) -> None:
        self._by_kind = {kind: deque[Mark](maxlen=MAX_PER_KIND) for kind in KINDS}
        self.memory: Memory | None = None

    def add(self, event: Event, step: int) -> None:
        """Take in an event. ``step`` is the last accepted step; events that have their own step ignore it."""
        if isinstance(event, Memory):
            self.memory = _bounded_memory(event)
        elif (mark := _mark_of(event, step)) is not None:
            self._by_kind[mark.kind].append(mark)

    def to_list(self) -> list[Mark]:
        """Return all marks, grouped by kind."""
        return [mark for marks in self._by_kind.values() for mark in marks]

    def load(self, marks: Iterable[Mark], memory: Memory | None) -> None:
        """Replace everything with what ``to_list`` returned, and the newest ``memory`` record."""
        for kept in self._by_kind.values():
            kept.clear()
        for mark in marks:
            if mark.kind in self._by_kind:
                self._by_kind[mark.kind].append(mark)
        self.memory = memory


def _mark_of(event: Event, step: int) -> Mark | None:
    """Return the mark of an event that changed the run; None for the first start and all others."""
    match event:
        case Edit(ok=True):
            return Mark("edit", event.step, event.t, changed=_bounded(event.changed))
        case Checkpoint(ok=True):
            return Mark("checkpoint", event.step or 0, event.t)
        case Start() if event.attempt > 1:
            return Mark("start", event.resumed_from or 0, event.t, attempt=event.attempt)
        case Oom():
            return Mark("oom", step, event.t, where=_bounded_text(event.where or ""))
        case Rewind():
            return Mark("rewind", step, event.t)
        case Alert(what="nan"):
            return Mark("alert", step, event.t)
    return None


def _bounded_memory(event: Memory) -> Memory:
    parts = {_bounded_text(key): size for key, size in list((event.parts or {}).items())[:_MAX_LENGTH]}
    return Memory(
        event.t, event.attempt, parts=parts, measured=event.measured, micro=event.micro, context=event.context
    )


def _bounded(changed: dict[str, tuple[Any, Any]]) -> dict[str, tuple[Any, Any]]:
    """Return ``changed`` cut to a bounded size, without values that are no text and no number."""
    kept = list(changed.items())[:_MAX_LENGTH]
    return {_bounded_text(key): (_bounded_value(old), _bounded_value(new)) for key, (old, new) in kept}


def _bounded_text(text: str) -> str:
    return text[:_MAX_LENGTH].encode("utf-8", "replace").decode()


def _bounded_value(value: Any) -> Any:
    if isinstance(value, str):
        return _bounded_text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int) and abs(value) < 1 << 63 else None
