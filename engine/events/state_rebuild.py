"""Rebuilds the state of a run whose ``state.json`` is missing or damaged, from its log and ``spec.json``."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from engine.events.log import needles, scan
from engine.events.summary import update_summary
from engine.events.types import Checkpoint, Edit, Exit, Spec, Start, State, Val
from engine.host.files import fault
from profiles.errors import UserError

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir

_RARE = needles(Start, State, Exit, Checkpoint, Val, Edit, Spec)


def rebuilt_state(run: RunDir) -> dict[str, Any]:
    """Return the state of ``run`` without its ``state.json``, but for the steps; ``damage`` says what is wrong.

    It costs a search of the log for its rare records. What only the first state knew, the host and boot of the launch,
    is in ``spec.json`` too.
    """
    start = run.start()
    state: dict[str, Any] = {"id": run.id, "name": run.name, "trainer": run.trainer_identity()}
    state |= {key: start[key] for key in ("host", "boot") if isinstance(start.get(key), str)}
    state["damage"] = f"state.json is {fault(run.state_path)}; read from the log"
    with contextlib.suppress(UserError):
        spec = run.spec()
        batch = {"micro": spec.batch.micro, "accum": spec.accum, "context": spec.batch.context}
        state |= {"profile": spec.profile, "backend": spec.launch.backend, "steps": spec.train.steps, **batch}
    for _, event in scan(run.log_path, *_RARE):
        state.setdefault("started", event.t)
        update_summary(state, event)
    return state
