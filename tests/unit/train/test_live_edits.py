"""Edits of a living run that a restart makes again, and those of the cadence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.checkpoints import checkpoint
from engine.events.commands import Command
from engine.train.backends.build import build_backend
from engine.train.backends.ranks import SingleRank
from engine.train.loop import Trainer
from profiles.spec import RunSpec
from tests.unit.train.whole_runs import Log, Nano


def sets(step: int, *edits: dict[str, Any]) -> Any:
    """Makes ``edits`` at ``step``, once."""
    left = [Command(f"edit-{n}", "set", {"changes": edit, "unlock": True}, "test") for n, edit in enumerate(edits)]

    def ask(record: dict[str, Any]) -> list[Command]:
        due = record["kind"] == "step" and record["step"] == step
        return [left.pop(0) for _ in range(len(left))] if due else []

    return ask


def train(spec: RunSpec, out: Path, log: Log) -> None:
    Trainer(spec, build_backend(spec, SingleRank()), log, out, supervised=True).run(checkpoint.latest(out), None)


def test_a_context_that_went_there_and_back_at_one_step_is_there_again(nano: Nano, tmp_path: Path) -> None:
    """Back at the old context the data goes on in an epoch of its own, of which the step's checkpoint knows nothing."""
    spec = nano("steps=6", "save_every=3", "val_every=0")
    log = Log(sets(3, {"context": 16}, {"context": 32}))
    train(spec, tmp_path / "out", log)
    straight = log.losses()
    (tmp_path / "out" / "ckpt_step_6").rename(tmp_path / "gone")
    train(spec, tmp_path / "out", log)
    assert [start["resumed_from"] for start in log.of("start")] == [None, 3]
    assert log.losses() == straight


def test_validation_is_begun_and_ended_by_an_edit(nano: Nano, tmp_path: Path) -> None:
    spec = nano("steps=8", "save_every=0", "val_every=0")
    log = Log(sets(2, {"val_every": 2}))
    train(spec, tmp_path / "begun", log)
    always = Log(sets(5, {"val_every": 0}))
    train(nano("steps=8", "save_every=0", "val_every=2"), tmp_path / "ended", always)
    told = {record["step"]: record["loss"] for record in log.of("val")}
    assert list(told) == [4, 6, 8]
    assert [record["step"] for record in always.of("val")] == [0, 2, 4]
    assert told[4] == always.of("val")[-1]["loss"]


def test_validation_that_has_no_data_is_refused(nano: Nano, tmp_path: Path) -> None:
    spec = nano("steps=4", "save_every=0", "val_every=0")
    (tmp_path / "shards" / "phase1" / "val").rename(tmp_path / "elsewhere")
    log = Log(sets(2, {"val_every": 2}))
    train(spec, tmp_path / "out", log)
    (edit,) = log.of("edit")
    assert not edit["ok"] and "val" in edit["why"]
    assert len(log.losses()) == 4


def test_asked_to_end_with_the_step_just_done_it_does_no_other(nano: Nano, tmp_path: Path) -> None:
    spec = nano("steps=8", "save_every=0", "val_every=0")
    log = Log(sets(4, {"stop_step": 4}))
    train(spec, tmp_path / "out", log)
    assert list(log.losses()) == [1, 2, 3, 4]
    assert log.of("state")[-1] == {"kind": "state", "phase": "stopped", "reason": "reached stop_step = 4"}
    assert checkpoint.steps(tmp_path / "out") == [4]


def test_the_log_holds_the_live_spec_also_where_a_restart_replays_an_edit(nano: Nano, tmp_path: Path) -> None:
    spec = nano("steps=8", "save_every=2", "val_every=0")
    log = Log(sets(5, {"lr_scale": 0.5}))
    train(spec, tmp_path / "out", log)
    assert [(r["step"], r["values"]["optim.lr_scale"]) for r in log.of("spec")] == [(0, 1.0), (5, 0.5)]
    again = Log()
    again.records = [record for record in log.records if record["kind"] == "edit"]
    Trainer(spec, build_backend(spec, SingleRank()), again, tmp_path / "out").run(
        tmp_path / "out" / "ckpt_step_4", None
    )
    assert [(r["step"], r["values"]["optim.lr_scale"]) for r in again.of("spec")] == [(4, 1.0), (5, 0.5)]
