"""Starting a job: check first, then create it, then hand it to a detached supervisor."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.jobs.launchers import check_launcher, prepare
from engine.jobs.own import make_own
from engine.jobs.process import is_alive, is_locked, spawn_detached, this_boot, this_host
from engine.jobs.status import CUT_OFF, ENDED
from engine.jobs.store import Job, Store
from engine.preflight import check, check_history, resolved
from engine.version import package_version
from profiles.errors import UserError

if TYPE_CHECKING:
    from profiles.spec import RunSpec

STARTUP_PATIENCE = 10.0  # seconds for a new supervisor to take its lock


def launch(
    store: Store, spec: RunSpec, *, name: str | None = None, resume: Path | None = None, init_from: Path | None = None
) -> Job:
    """Start ``spec`` as a job of its own that outlives us. Raises ``UserError`` before anything is created."""
    spec = resolved(spec)
    if name is not None and (not name or "/" in name or name.startswith(".") or name == "latest"):
        raise UserError(f"--name {name!r}: use a plain word other than latest, without a slash or a dot in front")
    out = Path(spec.train.out)
    check(spec, out / name if name else out)
    check_launcher(spec)
    if name:
        _check_name(store, name, spec.train.out)
        check_history(out / name, resume)
    start = {
        "name": name,
        "resume": str(resume) if resume else None,
        "init_from": str(init_from) if init_from else None,
    }
    state: dict[str, Any] = {
        "profile": spec.profile,
        "backend": spec.launch.backend,
        "steps": spec.train.steps,
        "micro": spec.batch.micro,
        "accum": spec.accum,
        "context": spec.batch.context,
        "version": package_version(),
        "host": this_host(),
        "boot": this_boot(),
        "phase": "starting",
        "attempt": 0,
        "started": time.time(),
    }
    job = store.create(spec, start, state)
    prepare(spec, job.path)
    ensure_supervisor(job)
    return job


def _check_name(store: Store, name: str, out: str) -> None:
    """Whether no living run writes to the folder of that name: a young one has neither checkpoints nor a lock in it."""
    for job in (Job(store.jobs / id) for id in store.ids()):
        if job.name == name and not job.ended() and job.spec().train.out == out:
            phase = job.summary()["phase"]
            if phase not in (*ENDED, CUT_OFF):
                raise UserError(
                    f"--name {name}: job {job.id} is {phase} and writes its checkpoints there;"
                    f" choose another, or first: mla-tui stop {job.id}"
                )


def start_supervisor(job: Job) -> None:
    """Start a supervisor and do not wait. Where one lives already the new one sees the lock and leaves."""
    argv = [sys.executable, "-m", "engine.jobs.supervisor", str(job.path)]
    spawn_detached(argv, job.console_path, job.path)


def ensure_supervisor(job: Job) -> None:
    """Return when a supervisor holds the job. Raises ``UserError`` where it cannot or must not."""
    state = job.state()
    if is_locked(job.supervisor_lock) or state.get("phase") in ENDED:
        return
    if not job.is_here(state):
        raise UserError(
            f"job {job.id}: was started on host {state.get('host')} before its last boot and was cut off;"
            f" go on from its last checkpoint with: mla-tui launch --resume {state.get('checkpoint') or 'latest'}"
        )
    make_own(job.path)
    start_supervisor(job)
    deadline = time.monotonic() + STARTUP_PATIENCE
    while time.monotonic() < deadline:
        state = job.state()
        if state.get("phase") in ENDED or (is_locked(job.supervisor_lock) and is_alive(state.get("supervisor"))):
            return
        time.sleep(0.02)
    raise UserError(f"job {job.id}: its supervisor did not start; see {job.console_path}")
