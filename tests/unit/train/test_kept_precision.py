"""What "auto" was for a run, it stays after a resume on another device."""

from __future__ import annotations

from pathlib import Path

from engine.checkpoints.checkpoint import spec_of
from engine.events.types import Event, Start
from engine.memory.hardware import Hardware
from engine.memory.search.choose import keep_choices
from engine.preflight import resolve_spec
from engine.train.main import run_foreground
from profiles.registry import with_overrides
from profiles.spec import RunSpec
from tests.unit.train.tiny_runs import MakeSpec

GB = 1 << 30
CARD = Hardware("a card", "cuda", 16 * GB, 15 * GB, 32 * GB, 30 * GB)


def trained_in(spec: RunSpec, resume: Path | None = None) -> str:
    """Train ``spec`` and return the precision of its execution plan."""
    events: list[Event] = []
    assert run_foreground(spec, None, resume, None, events.append, lambda resolved: None) == 0
    (start,) = [event for event in events if isinstance(event, Start)]
    assert start.plan is not None
    return str(start.plan["precision"])


def test_a_precision_that_only_the_trainer_could_choose_is_kept(nano: MakeSpec, tmp_path: Path) -> None:
    words = ("steps=1", "save_every=1", "val_every=0", f"train.out={tmp_path / 'out'}")
    auto = nano(*words, "precision=auto")
    assert trained_in(auto) == "fp32"
    saved = spec_of(tmp_path / "out" / "ckpt_step_1")
    assert saved.train.precision == "fp32" and "train.precision" in saved.resolved
    assert resolve_spec(auto, CARD).train.precision == "bf16"
    assert resolve_spec(keep_choices(auto, saved), CARD).train.precision == "fp32"
    assert with_overrides(saved, ["launch.backend=deepspeed"]).train.precision == "auto"  # its own to choose


def test_a_trainer_that_has_to_choose_takes_what_its_checkpoint_was_trained_in(nano: MakeSpec, tmp_path: Path) -> None:
    words = ("save_every=1", "val_every=0", f"train.out={tmp_path / 'out'}")
    assert trained_in(nano(*words, "steps=1", "precision=bf16")) == "bf16"
    on = nano(*words, "steps=2", "precision=auto")
    assert trained_in(on, tmp_path / "out" / "ckpt_step_1") == "bf16"
