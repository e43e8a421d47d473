"""Compares a run with injected faults against references that have none.

- The replay: a run without faults. It applies only the edits that define a step (context, sequences, learning-rate
  scale, schedule, last step), at the recorded steps. The sequences of each step must be equal, the losses within
  1e-5. Without such edits the replay is simply the undisturbed run.
- The plain loop: the run's sequences, split into micro-batches as the log says, through a new backend. Losses and
  weights must be bit-equal.
- The last checkpoint must hold the weights of the plain loop.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.checkpoints import checkpoint
from engine.events.types import Edit
from engine.train.backends.build import build_backend
from engine.train.backends.ranks import SingleRank
from profiles.spec import RunSpec
from tests.unit.train.faulty_run import FaultyRun, Injection

STEP_KEYS = ("sequences", "context")
REPLAYED_KEYS = (*STEP_KEYS, "lr_scale", "stop_step", "steps", "decay")


def edits_in_effect(records: list[dict[str, Any]]) -> list[Edit]:
    """Return the user's edits that define the steps of the finished run: in the order of their steps.

    An edit made after a restart, at an earlier step, replaces edits of the same keys at later steps.
    """
    in_effect: list[tuple[int, str, Any]] = []
    for record in records:
        if record["kind"] == "edit" and record["ok"] and record["by"] != "oom":
            changed = {key: values for key, values in record["changed"].items() if key in REPLAYED_KEYS}
            replaced = {*changed, *(STEP_KEYS if changed.keys() & {*STEP_KEYS} else ())}
            in_effect = [edit for edit in in_effect if edit[0] <= record["step"] or edit[1] not in replaced]
            in_effect += [(record["step"], key, values) for key, values in changed.items()]
    in_effect.sort(key=lambda edit: edit[0])
    return [
        Edit(ok=True, step=step, by="test", id="0", changed={key: (old, new)}) for step, key, (old, new) in in_effect
    ]


def plain_loop_weights(spec: RunSpec, run: FaultyRun, steps: dict[int, dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Return the weights after training on the logged steps; check each loss against the log's."""
    backend = build_backend(spec, SingleRank())
    for step, record in steps.items():
        sequences, micro = run.sequences[step], record["micro"]
        assert sequences.shape == (micro * record["accum"], record["context"] + 1)
        for first in range(0, len(sequences), micro):
            last = first + micro >= len(sequences)
            backend.accumulate(sequences[first : first + micro], len(sequences) * record["context"], last)
        assert backend.window_totals()[0] == record["loss"], f"step {step}"
        backend.optimizer_step(record["lr"], spec.optim.clip)
    return backend.state_dict()["model"]


def run_and_compare(spec: RunSpec, folder: Path, injections: list[Injection], operations: dict[str, int]) -> FaultyRun:
    """Run ``spec`` with ``injections`` and compare it with the references; ``operations`` as for ``FaultyRun``."""
    run = FaultyRun(spec, folder / "run", list(injections), operations, [])
    run.run_to_end()
    steps = run.by_step("step")
    end = max(steps)
    assert list(steps) == list(range(1, end + 1))

    replay_spec = spec.with_values("replay", train={"val_every": 1, "save_every": 0})
    replay = FaultyRun(replay_spec, folder / "replay", [], operations, edits_in_effect(run.records()))
    replay.run_to_end()
    expected = replay.by_step("step")
    assert list(expected) == list(steps)
    for step in steps:
        assert np.array_equal(run.sequences[step], replay.sequences[step]), f"step {step} had other sequences"
        assert (steps[step]["lr"], steps[step]["tokens"]) == (expected[step]["lr"], expected[step]["tokens"]), step
    losses = [{step: record["loss"] for step, record in one.by_step("step").items()} for one in (run, replay)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    expected_val = replay.by_step("val")
    # An edit of the context at a step falls before that step's validation in one of the two, after it in the other.
    unequal = {edit.step for edit in edits_in_effect(run.records()) if edit.changed.keys() & {*STEP_KEYS}}
    for step, record in run.by_step("val").items():
        if step in unequal:
            continue
        assert record["loss"] == pytest.approx(expected_val[step]["loss"], rel=1e-5), f"validation at {step}"

    weights = plain_loop_weights(spec, run, steps)
    saved = checkpoint.load(run.out / f"ckpt_step_{end}")[0]["model"]
    assert saved.keys() == weights.keys()
    assert all(torch.equal(saved[name], weights[name]) for name in weights)
    return run
