"""Checks edits of an active run: the ones a restart replays, and those of validation, saves and the last step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.checkpoints import checkpoint
from engine.events.requests import SetRequest
from engine.events.types import Command, Edit, State
from engine.train.backends.build import build_backend
from engine.train.backends.ranks import SingleRank
from engine.train.loop import Trainer
from engine.train.run_state import RunState
from profiles.spec import RunSpec
from tests.unit.train.tiny_runs import MakeSpec, RecordingReporter


def set_at(step: int, *edits: dict[str, Any]) -> Any:
    """Return a function that sends ``edits`` once, after the record of ``step``."""
    pending = [
        Command(id=f"edit-{n}", request=SetRequest(changes=edit, unlock=True), by="test")
        for n, edit in enumerate(edits)
    ]

    def respond(record: dict[str, Any]) -> list[Command]:
        due = record["kind"] == "step" and record["step"] == step
        return [pending.pop(0) for _ in range(len(pending))] if due else []

    return respond


def train(spec: RunSpec, out: Path, log: RecordingReporter) -> None:
    Trainer(RunState(spec), build_backend(spec, SingleRank()), log, out, run="run").run(checkpoint.latest(out), None)


def test_a_context_changed_and_restored_at_one_step_survives_a_restart(nano: MakeSpec, tmp_path: Path) -> None:
    """The restored context continues in a new data epoch, which the checkpoint of that step does not contain."""
    spec = nano("steps=6", "save_every=3", "val_every=0")
    log = RecordingReporter(set_at(3, {"context": 16}, {"context": 32}))
    train(spec, tmp_path / "out", log)
    uninterrupted = log.losses()
    (tmp_path / "out" / "ckpt_step_6").rename(tmp_path / "moved")
    train(spec, tmp_path / "out", log)
    assert [start["resumed_from"] for start in log.of("start")] == [None, 3]
    assert log.losses() == uninterrupted


def test_an_edit_starts_and_stops_validation(nano: MakeSpec, tmp_path: Path) -> None:
    spec = nano("steps=8", "save_every=0", "val_every=0")
    log = RecordingReporter(set_at(2, {"val_every": 2}))
    train(spec, tmp_path / "started", log)
    from_start = RecordingReporter(set_at(5, {"val_every": 0}))
    train(nano("steps=8", "save_every=0", "val_every=2"), tmp_path / "stopped", from_start)
    losses = {record["step"]: record["loss"] for record in log.of("val")}
    assert list(losses) == [4, 6, 8]
    assert [record["step"] for record in from_start.of("val")] == [0, 2, 4]
    assert losses[4] == from_start.of("val")[-1]["loss"]


def test_an_edit_that_starts_validation_without_data_is_refused(nano: MakeSpec, tmp_path: Path) -> None:
    spec = nano("steps=4", "save_every=0", "val_every=0")
    (tmp_path / "shards" / "phase1" / "val").rename(tmp_path / "elsewhere")
    log = RecordingReporter(set_at(2, {"val_every": 2}))
    train(spec, tmp_path / "out", log)
    (edit,) = log.of("edit")
    assert not edit["ok"] and "val" in edit["why"]
    assert len(log.losses()) == 4


def test_stop_step_at_the_current_step_ends_the_run(nano: MakeSpec, tmp_path: Path) -> None:
    spec = nano("steps=8", "save_every=0", "val_every=0")
    log = RecordingReporter(set_at(4, {"stop_step": 4}))
    train(spec, tmp_path / "out", log)
    assert list(log.losses()) == [1, 2, 3, 4]
    assert log.events[-1] == State(phase="stopped", reason="reached stop_step = 4")
    assert checkpoint.steps(tmp_path / "out") == [4]


def test_the_live_spec_is_logged_after_an_edit_and_after_its_replay(nano: MakeSpec, tmp_path: Path) -> None:
    spec = nano("steps=8", "save_every=2", "val_every=0")
    log = RecordingReporter(set_at(5, {"lr_scale": 0.5}))
    train(spec, tmp_path / "out", log)
    assert [(r["step"], r["values"]["optim.lr_scale"]) for r in log.of("spec")] == [(0, 1.0), (5, 0.5)]
    resumed = RecordingReporter()
    resumed.events = [event for event in log.events if isinstance(event, Edit)]
    Trainer(RunState(spec), build_backend(spec, SingleRank()), resumed, tmp_path / "out", run="run").run(
        tmp_path / "out" / "ckpt_step_4", None
    )
    assert [(r["step"], r["values"]["optim.lr_scale"]) for r in resumed.of("spec")] == [(4, 1.0), (5, 0.5)]


def test_a_restart_says_from_its_start_on_which_edits_it_will_make_again(nano: MakeSpec, tmp_path: Path) -> None:
    spec = nano("steps=20", "save_every=3", "val_every=0")
    edits: dict[int, dict[str, Any]] = {4: {"stop_step": 7}, 5: {"micro": 2}}
    log = RecordingReporter(make(edits))
    train(spec, tmp_path / "out", log)
    for step in (6, 7):
        (tmp_path / "out" / f"ckpt_step_{step}").rename(tmp_path / f"{step}")
    before, edits[4] = len(log.of("spec")), {"micro": 8}  # instead of the 2 of the step after
    train(spec, tmp_path / "out", log)
    stop, split = [4, {"train.stop_step": 7}], [5, {"batch.micro": 2}]
    assert [
        (r["step"], r["accum"], [[one["step"], one["values"]] for one in r["later"] or []])
        for r in log.of("spec")[before:]
    ] == [(3, 2, [stop, split]), (4, 2, [split]), (4, 1, [])]
    assert list(log.losses()) == [1, 2, 3, 4, 5, 6, 7]


def make(edits: dict[int, dict[str, Any]]) -> Any:
    """Return a function that sends each of ``edits``, once, after the record of its step."""

    def respond(record: dict[str, Any]) -> list[Command]:
        changes = edits.pop(record["step"], None) if record["kind"] == "step" else None
        return [Command(id="edit", request=SetRequest(changes=changes), by="test")] if changes else []

    return respond


def test_a_wsd_run_is_lengthened_and_sent_into_its_decay_and_a_restart_replays_both(
    nano: MakeSpec, tmp_path: Path
) -> None:
    spec = nano("steps=6", "save_every=5", "val_every=0", "optim.schedule=wsd", "optim.decay=2")
    log = RecordingReporter(make({3: {"steps": 50}, 7: {"decay": "now"}}))
    train(spec, tmp_path / "out", log)
    rates = [record["lr"] for record in log.of("step")]
    peak, floor = spec.optim.lr, spec.optim.final_lr
    assert rates == [peak / 2, *[peak] * 6, floor + (peak - floor) * (1 - 0.5**0.5), floor]
    assert [edit["changed"] for edit in log.of("edit")] == [{"steps": [6, 50]}, {"steps": [50, 9]}]
    uninterrupted = log.losses()
    (tmp_path / "out" / "ckpt_step_9").rename(tmp_path / "moved")
    train(spec, tmp_path / "out", log)
    assert [start["resumed_from"] for start in log.of("start")] == [None, 5]
    assert log.losses() == uninterrupted
    assert [record["lr"] for record in log.of("step")][9:] == rates[5:]
