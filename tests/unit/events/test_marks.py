"""Marks: the newest events of a run with their step, bounded in number and size."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from engine.events.log import LogWriter
from engine.events.log_index import LogIndex
from engine.events.marks import MAX_PER_KIND, Marks

if TYPE_CHECKING:
    from tests.unit.conftest import Make


def test_marks_hold_events_with_their_step() -> None:
    marks = Marks()
    for record in (
        {"kind": "start", "attempt": 1},
        {"kind": "edit", "ok": True, "step": 7, "changed": {"micro": [12, 6]}, "by": "me"},
        {"kind": "edit", "ok": False, "step": 8, "changed": {}},
        {"kind": "checkpoint", "ok": True, "step": 10, "path": "somewhere"},
        {"kind": "checkpoint", "ok": False, "step": 11},
        {"kind": "oom", "where": "forward", "action": "micro 6 → 3"},
        {"kind": "start", "attempt": 2, "resumed_from": 10},
        {"kind": "alert", "what": "stall"},
        {"kind": "alert", "what": "nan"},
        {"kind": "memory", "parts": {"weights": 1}},
        {"kind": "memory", "parts": {"weights": 2}},
    ):
        marks.add(record, 12)
    assert [(mark["kind"], mark["step"]) for mark in marks.to_list()] == [
        ("edit", 7),
        ("oom", 12),
        ("checkpoint", 10),
        ("start", 10),
        ("alert", 12),
        ("memory", 12),
    ]
    assert marks.to_list()[0]["changed"] == {"micro": [12, 6]}
    assert marks.to_list()[-1]["parts"] == {"weights": 2}
    again = Marks()
    again.load(json.loads(json.dumps(marks.to_list())))
    assert again.to_list() == marks.to_list()


def test_marks_are_bounded_in_number_and_in_size() -> None:
    marks = Marks()
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    for step in range(3 * MAX_PER_KIND):
        changed = {"x" * 9999: ["y" * 9999, float("inf")], "deep": [deep, 1 << 4000]}
        marks.add({"kind": "edit", "ok": True, "step": step, "changed": changed}, 0)
    kept = marks.to_list()
    assert [mark["step"] for mark in kept] == list(range(2 * MAX_PER_KIND, 3 * MAX_PER_KIND))
    assert len(json.dumps(kept, allow_nan=False)) < 500 * MAX_PER_KIND


def test_marks_survive_a_deleted_cache(make_run: Make) -> None:
    run = make_run()
    log = LogWriter(run.log_path, 1)
    log.write("edit", ok=True, step=1, changed={"micro": [8, 4]})
    opened = LogIndex(run)
    opened.catch_up()
    opened.save()
    log.write("checkpoint", ok=True, step=5)
    again = LogIndex(run)
    again.catch_up()
    assert not again.warnings
    assert [mark["kind"] for mark in again.history.marks.to_list()] == ["edit", "checkpoint"]
