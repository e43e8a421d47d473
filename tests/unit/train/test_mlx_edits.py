"""Checks live edits under MLX, with kills in between, against runs without faults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.events.requests import SetRequest
from tests.unit.train.faulty_run import Injection, Kill, KillDuringSave, SendCommand
from tests.unit.train.reference_replay import run_and_compare
from tests.unit.train.tiny_runs import MakeSpec


def edit(after: int, **changes: Any) -> SendCommand:
    return SendCommand(after, SetRequest(changes=changes, unlock=True))


def test_an_edit_of_micro_keeps_losses_and_sequences(nano: MakeSpec, tmp_path: Path) -> None:
    spec = nano("backend=mlx", "steps=10", "save_every=3", "val_every=4")
    run = run_and_compare(spec, tmp_path, [edit(15, micro=2), Kill(40, oom_killer=False), edit(25, micro=8)], {})
    assert {record["micro"] for record in run.by_step("step").values()} == {4, 2, 8}
    assert sum(record["kind"] == "start" for record in run.records()) == 2


def test_edits_of_context_sequences_and_lr_scale_match_their_replay(nano: MakeSpec, tmp_path: Path) -> None:
    spec = nano("backend=mlx", "steps=10", "save_every=3", "val_every=4")
    injections: list[Injection] = [
        *(edit(10, context=16), edit(12, lr_scale=0.5), Kill(16, oom_killer=False)),
        *(edit(12, sequences=12, micro=6), KillDuringSave(1, call=9, overlap=2), edit(45, context=48)),
    ]
    run = run_and_compare(spec, tmp_path, injections, {})
    steps = run.by_step("step").values()
    assert {(record["context"], record["micro"] * record["accum"]) for record in steps} == {
        *((32, 8), (16, 8), (16, 12), (48, 12)),
    }
    assert sum(record["kind"] == "start" for record in run.records()) == 3
