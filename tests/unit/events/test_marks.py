"""Marks: the newest events of a run with their step, bounded in number and size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from engine.events.log import LogWriter
from engine.events.log_index import LogIndex
from engine.events.marks import MAX_PER_KIND, Mark, Marks
from engine.events.types import Alert, Checkpoint, Edit, Memory, Oom, Start

if TYPE_CHECKING:
    from tests.unit.conftest import Make


def test_marks_hold_events_with_their_step() -> None:
    marks = Marks()
    for event in (
        Start(1.0, 1),
        Edit(1.0, ok=True, step=7, changed={"micro": (12, 6)}, by="me"),
        Edit(1.0, ok=False, step=8, changed={}),
        Checkpoint(1.0, ok=True, step=10, path="somewhere"),
        Checkpoint(1.0, ok=False, step=11),
        Oom(1.0, where="forward", action="micro 6 → 3"),
        Start(1.0, 2, resumed_from=10),
        Alert(1.0, what="stall"),
        Alert(1.0, what="nan"),
        Memory(1.0, parts={"weights": 1}),
        Memory(1.0, parts={"weights": 2}),
    ):
        marks.add(event, 12)
    assert [(mark.kind, mark.step) for mark in marks.to_list()] == [
        ("edit", 7),
        ("oom", 12),
        ("checkpoint", 10),
        ("start", 10),
        ("alert", 12),
    ]
    assert marks.to_list()[0].changed == {"micro": (12, 6)}
    assert marks.memory is not None and marks.memory.parts == {"weights": 2}
    again = Marks()
    again.load(msgspec.json.decode(msgspec.json.encode(marks.to_list()), type=list[Mark]), marks.memory)
    assert (again.to_list(), again.memory) == (marks.to_list(), marks.memory)


def test_marks_are_bounded_in_number_and_in_size() -> None:
    marks = Marks()
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    for step in range(3 * MAX_PER_KIND):
        changed = {"x" * 9999: ("y" * 9999, float("inf")), "deep": (deep, 1 << 4000), "name": ("\udcff", 1)}
        marks.add(Edit(1.0, ok=True, step=step, changed=changed), 0)
    kept = marks.to_list()
    assert [mark.step for mark in kept] == list(range(2 * MAX_PER_KIND, 3 * MAX_PER_KIND))
    assert len(msgspec.json.encode(kept)) < 500 * MAX_PER_KIND


def test_marks_survive_a_deleted_cache(make_run: Make) -> None:
    run = make_run()
    log = LogWriter(run.log_path, 1)
    log.write(Edit(ok=True, step=1, changed={"micro": (8, 4)}))
    opened = LogIndex(run)
    opened.catch_up()
    opened.save()
    log.write(Checkpoint(ok=True, step=5))
    again = LogIndex(run)
    again.catch_up()
    assert not again.warnings
    assert [mark.kind for mark in again.history.marks.to_list()] == ["edit", "checkpoint"]
