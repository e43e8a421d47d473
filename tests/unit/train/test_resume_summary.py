"""The line that a resume prints: whose checkpoint, of which step, what differs, and what the learning rate does."""

from pathlib import Path

import pytest
import torch

from engine.checkpoints import checkpoint
from engine.preflight import resolve_spec
from engine.train.edits import edited
from engine.train.resume_summary import resume_summary
from profiles.errors import UserError
from profiles.registry import load, with_overrides
from profiles.spec import RunSpec

SPEC = load("cpu_demo", ["steps=40", "warmup=5", "optim.lr=3e-3", "optim.final_lr=3e-4", "sequences=8", "micro=4"])


def saved(folder: Path, spec: RunSpec, step: int) -> Path:
    tensors = {"model": {"w": torch.zeros(1)}, "optimizer": {"m": torch.zeros(1)}}
    return checkpoint.save(folder / "mine", step, tensors, {"step": step, "spec": spec.to_dict()}, folder / "none")[0]


def test_an_unchanged_run_goes_on(tmp_path: Path) -> None:
    line = resume_summary(saved(tmp_path, SPEC, 20), resolve_spec(SPEC))
    assert (
        line
        == "resume: the checkpoint of mine at step 20 of 40; the learning rate goes on at 0.0018, to 0.0003 at step 40"
    )


def test_a_jump_of_the_rate_is_said_with_the_way_to_avoid_it(tmp_path: Path) -> None:
    longer = with_overrides(SPEC, ["steps=80"])
    line = resume_summary(saved(tmp_path, SPEC, 40), longer)
    assert line == (
        "resume: the checkpoint of mine at step 40 of 40; differs: train.steps 40 → 80;"
        " the learning rate goes from 0.0003 to 0.0017, then to 0.0003 at step 80"
        " (constant: -s optim.lr=0.0003 -s optim.final_lr=0.0003)"
    )
    flat = with_overrides(longer, ["optim.lr=0.0003", "optim.final_lr=0.0003"])
    assert "the learning rate goes on at 0.0003, to 0.0003 at step 80" in resume_summary(
        saved(tmp_path / "again", SPEC, 40), flat
    )


def test_a_live_edit_that_the_profile_does_not_have_is_named(tmp_path: Path) -> None:
    live = edited(SPEC, {"micro": 2, "lr_scale": 0.5})
    line = resume_summary(saved(tmp_path, live, 20), SPEC)
    assert "differs: batch.micro 2 → 4, optim.lr_scale 0.5 → 1.0; the learning rate goes from 0.00098 to 0.0018" in line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([], "is of step 40, and train.steps = 40: nothing is left to do; add steps, e.g. -s steps=80"),
        (["steps=60", "train.stop_step=30"], "is of step 40, and train.stop_step = 30; go on with -s stop_step=0"),
    ],
)
def test_a_resume_that_would_train_nothing_is_refused(tmp_path: Path, changes: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        resume_summary(saved(tmp_path, SPEC, 40), with_overrides(SPEC, changes))
