"""What happened to a run is known by step, whatever the length of its log, and the events are read back in pieces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.events import history as history_module
from engine.events import reverse_reader
from engine.events.log import LogWriter, read_all
from engine.events.log_index import LogIndex
from engine.events.marks import MAX_PER_KIND, Marks
from engine.events.reverse_reader import METRIC_KINDS, events_before, events_from
from engine.runs import client as client_module
from engine.runs.client import RunClient

if TYPE_CHECKING:
    from tests.unit.runs.conftest import Make


def test_marks_are_what_happened_with_its_step() -> None:
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
    told = marks.to_list()
    assert [mark["step"] for mark in told] == list(range(2 * MAX_PER_KIND, 3 * MAX_PER_KIND))
    assert len(json.dumps(told, allow_nan=False)) < 500 * MAX_PER_KIND


def test_marks_outlive_the_cache(make_run: Make) -> None:
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


async def test_a_look_at_a_part_of_a_long_run_is_of_single_steps(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history_module, "CAPACITY", 32)
    run = make_run()
    log = LogWriter(run.log_path, 1)
    for step in range(1, 1001):
        log.write("step", step=step, loss=100.0 if step == 555 else float(step % 7), tok_s=1.0)
    log.write("start", resumed_from=560)
    log = LogWriter(run.log_path, 2)
    for step in range(561, 1001):
        log.write("step", step=step, loss=-1.0, tok_s=1.0)
    link = RunClient(run)
    whole = await link.history(["loss"])
    assert len(whole["series"]["loss"]) <= 32
    found = await link.detail(["loss", "t"], 4096, 550, 563)
    assert found is not None
    assert [p[0] for p in found["series"]["loss"]] == list(range(550, 564))
    assert [p[2] for p in found["series"]["loss"]][5:8] == [100.0, 3.0, 4.0]
    assert [p[2] for p in found["series"]["loss"]][-3:] == [-1.0] * 3
    assert len(found["series"]["t"]) == 14
    monkeypatch.setattr(client_module, "DETAIL_LIMIT", 1000)
    assert await link.detail(["loss"], 4096, 1, 1000) is None


lines = st.one_of(
    st.builds(lambda n: json.dumps({"kind": "step", "t": 1, "step": n}, separators=(",", ":")), st.integers(0, 99)),
    st.builds(lambda s: json.dumps({"kind": "log", "text": s}, separators=(",", ":")), st.text(max_size=40)),
    st.builds(lambda s: json.dumps({"kind": "log", "text": 'says "kind":"' + s}), st.text(max_size=300)),
    st.sampled_from(["", "{torn", '{"kind":"state","t":1,"phase":"running"}', '{"kind":"telemetry","t":1}', "x" * 700]),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(lines, max_size=40), st.integers(1, 300), st.booleans(), st.data())
def test_events_are_the_same_read_either_way(
    tmp_path: Path, texts: list[str], piece: int, torn: bool, data: st.DataObject
) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes("\n".join([*texts, "" if not torn else '{"kind":"lo']).encode())
    offsets = [0]
    for text in texts:
        offsets.append(offsets[-1] + len(text.encode()) + 1)
    start, end = sorted((data.draw(st.sampled_from(offsets)), data.draw(st.sampled_from(offsets))))
    truth = [(at, r) for at, r in read_all(path) if r["kind"] not in METRIC_KINDS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reverse_reader, "BLOCK", piece)
        back = [pair for _, events in events_before(path, end) for pair in events]
        assert back[::-1] == [pair for pair in truth if pair[0] < end]
        on = [pair for _, events in events_from(path, start, end) for pair in events]
        assert on == [pair for pair in truth if start <= pair[0] < end]


def test_a_log_that_is_not_there_tells_nothing(tmp_path: Path) -> None:
    assert list(events_before(tmp_path / "none", 100)) == []
    assert list(events_from(tmp_path / "none", 0, 100)) == []
