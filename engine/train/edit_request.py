"""Turns a ``set`` command into the spec a run becomes, or says why it cannot be."""

from __future__ import annotations

from data.splits import check_data
from engine.events.requests import SetRequest
from engine.memory.hardware import detect_hardware
from engine.preflight import check_evals, check_samples
from engine.train.backends.backend import Backend
from engine.train.backends.ranks import Ranks
from engine.train.edits import check_stop_step, edited
from engine.train.oom.headroom import check_headroom
from engine.train.schedule import check_schedule_edit, decay_now
from profiles.errors import UserError
from profiles.optim import NOW
from profiles.spec import RunSpec


def requested_spec(request: SetRequest, spec: RunSpec, step: int, backend: Backend, ranks: Ranks) -> RunSpec:
    """``spec``, as it is at ``step``, with the changes of ``request``. Raises ``UserError``, the same on all ranks."""
    changes = dict(request.changes)
    for key in ("decay", "optim.decay"):
        if changes.get(key) == NOW:
            del changes[key]
            changes = decay_now(spec, step) | changes
    new = edited(spec, changes, unlock=request.unlock)
    if new.train.steps < step:
        raise UserError(f"set steps: {new.train.steps} is behind the run, which is at step {step}; use a later one")
    check_schedule_edit(spec, new, step)
    if new.train.stop_step != spec.train.stop_step:
        check_stop_step(new, step)
    validates = bool(new.train.val_every) and not spec.train.val_every
    if validates or new.batch.context != spec.batch.context:
        ranks.run_on_rank_zero(lambda: check_data(new))
    if new.train.sample_every and not spec.train.sample_every:
        ranks.run_on_rank_zero(lambda: check_samples(new))
    if new.train.eval_every and not spec.train.eval_every:
        ranks.run_on_rank_zero(lambda: check_evals(new))
    if not request.force:
        ranks.run_on_rank_zero(
            lambda: check_headroom(spec, new, detect_hardware(spec.launch.gpus_per_node), backend.capacity())
        )
    return new
