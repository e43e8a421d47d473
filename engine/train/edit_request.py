"""Turns a ``set`` command into the spec a run becomes, or says why it cannot be."""

from __future__ import annotations

from data.splits import check_data
from engine.events.types import Command
from engine.memory.hardware import detect_hardware
from engine.train.backends.backend import Backend
from engine.train.backends.ranks import Ranks
from engine.train.edits import edited
from engine.train.oom.headroom import check_headroom
from profiles.errors import UserError
from profiles.spec import RunSpec


def requested_spec(command: Command, spec: RunSpec, step: int, backend: Backend, ranks: Ranks) -> RunSpec:
    """``spec``, as it is at ``step``, with the changes of ``command``. Raises ``UserError``, the same on all ranks."""
    changes = command.params.get("changes")
    if not isinstance(changes, dict):
        raise UserError('set: write the changes as an object, for example {"micro": 4}')
    new = edited(spec, changes, unlock=command.params.get("unlock") is True)
    stop = new.train.stop_step
    if stop != spec.train.stop_step and 0 < stop < step:
        raise UserError(f"set stop_step: {stop} is behind the run, which is at step {step}; use a later one")
    validates = bool(new.train.val_every) and not spec.train.val_every
    if validates or new.batch.context != spec.batch.context:
        ranks.run_on_rank_zero(lambda: check_data(new))
    if command.params.get("force") is not True:
        ranks.run_on_rank_zero(
            lambda: check_headroom(spec, new, detect_hardware(spec.launch.gpus_per_node), backend.capacity())
        )
    return new
