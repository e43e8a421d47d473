"""Rebuilds the state of a run whose ``state.json`` is missing or damaged, from its log and ``spec.json``."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from engine.events.log import needles, scan
from engine.events.phases import CUT_OFF
from engine.events.status import RunStatus
from engine.events.status_updates import update_status
from engine.events.types import Checkpoint, Edit, Exit, Spec, Start, State, Val
from engine.host.files import fault
from profiles.errors import UserError

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir

_RARE = needles(Start, State, Exit, Checkpoint, Val, Edit, Spec)


def rebuilt_state(run: RunDir) -> RunStatus:
    """Return the state of ``run`` without its ``state.json``, but for the steps; ``damage`` says what is wrong.

    It costs a search of the log for its rare records. What only the first state knew, the host and boot of the launch,
    is in ``spec.json`` too.
    """
    launch = run.launch()
    state = RunStatus(id=run.id, name=launch.name or run.id, phase=CUT_OFF, host=launch.host, boot=launch.boot)
    state.trainer = run.trainer_identity()
    state.damage = f"state.json is {fault(run.state_path)}; read from the log"
    with contextlib.suppress(UserError):
        spec = run.spec()
        state.profile, state.backend, state.steps = spec.profile, spec.launch.backend, spec.train.steps
        state.micro, state.accum, state.context = spec.batch.micro, spec.accum, spec.batch.context
    for _, event in scan(run.log_path, *_RARE):
        state.started = event.t if state.started is None else state.started
        update_status(state, event)
    return state
