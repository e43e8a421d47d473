"""Computes the learning rate of a step: linear warm-up, then ``optim.schedule``.

- cosine: half a cosine down to ``final_lr`` (arXiv:1608.03983).
- linear: a straight line to zero (arXiv:2502.15938).
- wsd: the peak rate until the last ``decay`` steps, which fall as 1 - sqrt of their share to ``final_lr``
  (arXiv:2405.18392). The rate before the decay does not depend on the number of steps, so a run can be made longer.
"""

from __future__ import annotations

import math

from profiles.errors import UserError
from profiles.optim import NOW, OptimTable
from profiles.spec import RunSpec


def learning_rate(optim: OptimTable, step: int, steps: int) -> float:
    """Return the rate of optimizer step ``step`` of ``steps``, both counted from 1."""
    if step <= optim.warmup:
        return optim.lr * step / optim.warmup
    start = optim.decay_start(steps)
    progress = min(1.0, max(0.0, (step - start) / max(1, steps - start)))
    floor = 0.0 if optim.schedule == "linear" else optim.final_lr
    return floor + (optim.lr - floor) * _height(optim.schedule, progress)


def _height(schedule: str, progress: float) -> float:
    """Return the rate between floor (0) and peak (1) at ``progress`` (0 to 1) of the decay."""
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    return 1 - math.sqrt(progress) if schedule == "wsd" else 1 - progress


def decay_now(spec: RunSpec, step: int) -> dict[str, int]:
    """Return the steps and decay with which the decay of a wsd run begins after ``step``. Raises ``UserError``.

    A decay that is a share stays that share of the run, which ends with it.
    """
    optim, steps = spec.optim, spec.train.steps
    _check_wsd(optim, "decay")
    if step > optim.decay_start(steps):
        raise UserError(f"set decay: began after step {optim.decay_start(steps)}, and ends at step {steps}")
    if step < optim.warmup:
        raise UserError(f"set decay: the run is at step {step}, and its warm-up lasts until step {optim.warmup}")
    length = round(step * optim.decay / (1 - optim.decay)) if optim.decay < 1 else int(optim.decay)
    length = max(1, length)
    return {"steps": step + length, "decay": length}


def check_schedule_edit(old: RunSpec, new: RunSpec, step: int) -> None:
    """Check that the rate of a run at ``step`` goes on without a jump when ``old`` becomes ``new``.

    Raises ``UserError`` for another schedule than wsd, and where the decay has begun or would begin before ``step``.
    """
    key = "steps" if old.train.steps != new.train.steps else "decay"
    if (old.train.steps, old.optim.decay) == (new.train.steps, new.optim.decay):
        return
    _check_wsd(old.optim, key)
    steps, length = new.train.steps, new.optim.decay_steps(new.train.steps)
    begun, begins = old.optim.decay_start(old.train.steps), new.optim.decay_start(steps)
    if step > begun:
        raise UserError(f"set {key}: the decay began after step {begun}, and the run is at step {step}; it ends as set")
    if step > steps - length and step > begins:
        raise UserError(
            f"set {key}: with {steps} steps the decay of {length} would begin after step {max(0, steps - length)}, and"
            f" the run is at step {step}; use more steps, a shorter decay, or decay={NOW}"
        )


def _check_wsd(optim: OptimTable, key: str) -> None:
    if optim.schedule != "wsd":
        raise UserError(
            f"set {key}: the rate of optim.schedule = {optim.schedule} would jump; only a wsd run can be lengthened or"
            " sent into its decay"
        )
