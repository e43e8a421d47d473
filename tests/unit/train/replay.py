"""What a run to which anything happened must have learnt, by three oracles none of which knows of deaths:

- the replay: a run to which nothing happens but that the edits which say what a step is (context, sequences, learning
  rate, last step) are made at the recorded steps. The same sequences step by step, losses within 1e-5; where there are
  no such edits this is the run that nobody disturbed;
- the plain loop: those sequences, cut as the log says, through a fresh backend. The same losses and weights to the bit;
- the last checkpoint holds the weights of the plain loop.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.checkpoints import checkpoint
from engine.events.log import Record
from engine.train.backends.build import build_backend
from engine.train.backends.ranks import SingleRank
from profiles.spec import RunSpec
from tests.unit.train.troubled import Happening, Run

STEP = ("sequences", "context")  # what a step is
MEANT = (*STEP, "lr_scale", "stop_step")  # what the replay is told


def meant(records: list[Record]) -> list[Record]:
    """What people said that a step should be, as it holds in the end: ``edit`` records in the order of their steps.

    What is said after a restart, at an earlier step, takes the place of what was said of later ones.
    """
    said: list[tuple[int, str, Any]] = []
    for record in records:
        if record["kind"] == "edit" and record["ok"] and record["by"] != "oom":
            made = {key: pair for key, pair in record["changed"].items() if key in MEANT}
            over = {*made, *(STEP if made.keys() & {*STEP} else ())}
            said = [one for one in said if one[0] <= record["step"] or one[1] not in over]
            said += [(record["step"], key, pair) for key, pair in made.items()]
    said.sort(key=lambda one: one[0])
    return [
        {"kind": "edit", "ok": True, "step": step, "by": "test", "id": "0", "why": "", "changed": {key: pair}}
        for step, key, pair in said
    ]


def plain_loop(spec: RunSpec, run: Run, steps: dict[int, Record]) -> dict[str, torch.Tensor]:
    """The weights that the log's own steps lead to; each loss is held against the log's."""
    backend = build_backend(spec, SingleRank())
    for step, told in steps.items():
        rows, micro = run.fed[step], told["micro"]
        assert rows.shape == (micro * told["accum"], told["context"] + 1)
        for first in range(0, len(rows), micro):
            backend.accumulate(rows[first : first + micro], len(rows) * told["context"])
        assert backend.window_totals()[0] == told["loss"], f"step {step}"
        backend.optimizer_step(told["lr"], spec.optim.clip)
    return backend.state_dict()["model"]


def check(spec: RunSpec, folder: Path, happenings: list[Happening], size: dict[str, int]) -> Run:
    """Let ``happenings`` happen to a run of ``spec`` and hold it against the oracles; ``size`` as ``Run`` wants it."""
    run = Run(spec, folder / "run", list(happenings), size, [])
    run.live()
    steps = run.last("step")
    end = max(steps)
    assert list(steps) == list(range(1, end + 1))

    calm = spec.with_values("replay", train={"val_every": 1, "save_every": 0})
    replay = Run(calm, folder / "replay", [], size, meant(run.records()))
    replay.live()
    told = replay.last("step")
    assert list(told) == list(steps)
    for step in steps:
        assert np.array_equal(run.fed[step], replay.fed[step]), f"step {step} had other sequences"
        assert (steps[step]["lr"], steps[step]["tokens"]) == (told[step]["lr"], told[step]["tokens"]), step
    losses = [{step: record["loss"] for step, record in one.last("step").items()} for one in (run, replay)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    validated = replay.last("val")
    for step, record in run.last("val").items():
        if not step:  # the replay's first is behind the edits at step 0
            continue
        assert record["loss"] == pytest.approx(validated[step]["loss"], rel=1e-5), f"validation at {step}"

    found = plain_loop(spec, run, steps)
    held = checkpoint.load(run.out / f"ckpt_step_{end}")[0]["model"]
    assert held.keys() == found.keys()
    assert all(torch.equal(held[name], found[name]) for name in found)
    return run
