"""Rebuilds the state of a run whose ``state.json`` is missing or damaged, from its log and ``spec.json``."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.events.log import scan
from engine.events.summary import update_summary
from engine.host.files import read_json
from profiles.errors import UserError

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir

_RARE_KINDS = ("start", "state", "exit", "checkpoint", "val", "edit", "spec")


def rebuilt_state(run: RunDir) -> dict[str, Any]:
    """Return the state of ``run`` without its ``state.json``, but for the steps; ``damage`` says what is wrong.

    It costs a search of the log for its rare records. What only the first state knew, the host and boot of the launch,
    is in ``spec.json`` too.
    """
    start = run.start()
    state: dict[str, Any] = {"id": run.id, "name": run.name, "trainer": run.trainer_identity()}
    state |= {key: start[key] for key in ("host", "boot") if isinstance(start.get(key), str)}
    state["damage"] = f"state.json is {_fault(run.state_path)}; read from the log"
    with contextlib.suppress(UserError):
        spec = run.spec()
        batch = {"micro": spec.batch.micro, "accum": spec.accum, "context": spec.batch.context}
        state |= {"profile": spec.profile, "backend": spec.launch.backend, "steps": spec.train.steps, **batch}
    for _, record in scan(run.log_path, *(f'"kind":"{kind}"'.encode() for kind in _RARE_KINDS)):
        state.setdefault("started", record.get("t"))
        update_summary(state, record)
    return state


def spec_damage(run: RunDir) -> str | None:
    """Return a line where the run has no legible ``spec.json``: it was removed in part, or never was a run."""
    path = run.path / "spec.json"
    if read_json(path):
        return None
    return f"spec.json is {_fault(path)}; remove the run with: mla-tui rm {run.id}"


def _fault(path: Path) -> str:
    return "damaged" if path.exists() else "missing"
