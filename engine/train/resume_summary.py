"""Says in one line what a run that resumes from a checkpoint goes on with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.checkpoints import checkpoint
from engine.train.schedule import learning_rate
from profiles.errors import UserError
from profiles.spec import RunSpec

_NAMED = 6  # differences that the line names
_SMOOTH = 0.05  # relative change of the learning rate at the resume that needs no word
# Chosen again for the machine at hand, or of no consequence for what is trained.
_NOT_COMPARED = ("profile", "resolved", "launch", "data.root", "data.workers", "train.out", "memory.strategy")


def resume_summary(path: Path, spec: RunSpec) -> str:
    """Return whose checkpoint ``path`` is and of which step, how ``spec`` differs from its spec, and the next rate.

    Raises ``UserError`` where ``spec`` ends at that step, so that nothing would be trained.
    """
    facts = checkpoint.metadata(path)
    step, saved = int(facts["step"]), RunSpec.from_dict(facts["spec"], f"{path}/trainer.json")
    _check_steps_left(path, spec, step)
    parts = [f"resume: the checkpoint of {path.parent.name} at step {step} of {saved.train.steps}"]
    found = [f"{key} {old} → {new}" for key, old, new in _differences(saved.to_dict(), spec.to_dict())]
    if found:
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        parts.append(f"differs: {', '.join(found[:_NAMED])}{more}")
    return "; ".join([*parts, _rate(saved, spec, step)])


def _check_steps_left(path: Path, spec: RunSpec, step: int) -> None:
    steps, stop = spec.train.steps, spec.train.stop_step
    if steps <= step:
        raise UserError(
            f"--resume {path}: is of step {step}, and train.steps = {steps}: nothing is left to do;"
            f" add steps, e.g. -s steps={2 * step}"
        )
    if stop and stop <= step:
        raise UserError(f"--resume {path}: is of step {step}, and train.stop_step = {stop}; go on with -s stop_step=0")


def _rate(saved: RunSpec, spec: RunSpec, step: int) -> str:
    """Return what the learning rate does from the checkpoint's step to the next one."""

    def rate(of: RunSpec, at: int) -> float:
        return of.optim.lr_scale * learning_rate(of.optim, at, of.train.steps)

    before, after = rate(saved, step), rate(spec, step + 1)
    expected = rate(saved, min(step + 1, saved.train.steps))
    steps, start = spec.train.steps, spec.optim.decay_start(spec.train.steps)
    last = f"{rate(spec, steps):.2g} at step {steps}"
    if spec.optim.schedule == "wsd" and step < start:
        last += f", falling from step {start} on"
    if abs(after - expected) <= _SMOOTH * max(expected, after):
        return f"the learning rate goes on at {after:.2g}, to {last}"
    flat = f"optim.lr={before:.2g} -s optim.final_lr={before:.2g}"
    if spec.optim.schedule == "linear":  # it ends at zero whatever final_lr is
        flat += " -s optim.schedule=cosine"
    return f"the learning rate goes from {before:.2g} to {after:.2g}, then to {last} (constant: -s {flat})"


def _differences(saved: Mapping[str, Any], spec: Mapping[str, Any], table: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield key, old and new value of everything that differs."""
    for name in dict.fromkeys((*saved, *spec)):
        key, old, new = f"{table}{name}", saved.get(name), spec.get(name)
        if key in _NOT_COMPARED or old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new, f"{key}.")
        else:
            yield key, old, new
