"""Live edits under MLX: what they leave alone, and what they can be replayed from, with deaths among them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.unit.train.replay import check
from tests.unit.train.troubled import Ask, Happening, Kill, KillSaving
from tests.unit.train.whole_runs import Nano


def edit(after: int, **changes: Any) -> Ask:
    return Ask(after, "set", {"changes": changes, "unlock": True})


def test_another_micro_leaves_losses_and_sequences(nano: Nano, tmp_path: Path) -> None:
    spec = nano("backend=mlx", "steps=10", "save_every=3", "val_every=4")
    run = check(spec, tmp_path, [edit(15, micro=2), Kill(40, kernel=False), edit(25, micro=8)], {})
    assert {record["micro"] for record in run.last("step").values()} == {4, 2, 8}
    assert sum(record["kind"] == "start" for record in run.records()) == 2


def test_other_steps_are_those_of_the_recorded_edits(nano: Nano, tmp_path: Path) -> None:
    spec = nano("backend=mlx", "steps=10", "save_every=3", "val_every=4")
    happenings: list[Happening] = [
        *(edit(10, context=16), edit(12, lr_scale=0.5), Kill(16, kernel=False)),
        *(edit(12, sequences=12, micro=6), KillSaving(1, call=9, beside=2), edit(45, context=48)),
    ]
    run = check(spec, tmp_path, happenings, {})
    steps = run.last("step").values()
    assert {(record["context"], record["micro"] * record["accum"]) for record in steps} == {
        *((32, 8), (16, 8), (16, 12), (48, 12)),
    }
    assert sum(record["kind"] == "start" for record in run.records()) == 3
