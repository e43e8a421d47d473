"""Starting a run: check first, then create it, then hand it to a detached supervisor."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.events import wire
from engine.events.log import LogWriter
from engine.events.run_dir import REBOOTED, RunDir, is_on_other_host
from engine.events.start_supervisor import start_supervisor
from engine.events.summary import CUT_OFF, ENDED
from engine.host.files import write_json
from engine.host.private_dirs import make_private_dir
from engine.host.process import Lock, boot_id, host_name, is_alive, is_locked
from engine.host.version import package_version
from engine.preflight import check, check_checkpoint_folder, resolved
from engine.runs import hooks
from engine.runs.device_locks import check_free
from engine.runs.launchers import check_launcher, prepare
from engine.runs.store import RunStore
from profiles.errors import UserError

if TYPE_CHECKING:
    from profiles.spec import RunSpec

STARTUP_PATIENCE = 10.0  # seconds for a new supervisor to take its lock


def launch(
    store: RunStore,
    spec: RunSpec,
    *,
    name: str | None = None,
    resume: Path | None = None,
    init_from: Path | None = None,
    queue: bool = False,
    share_device: bool = False,
) -> RunDir:
    """Start ``spec`` as a run of its own that outlives us. Raises ``UserError`` before anything is created.

    A device that another run uses is refused; with ``queue`` the run waits for it, with ``share_device`` it does not
    ask.
    """
    spec = resolved(spec)
    if name is not None and (not name or "/" in name or name.startswith(".") or name == "latest"):
        raise UserError(f"--name {name!r}: use a plain word other than latest, without a slash or a dot in front")
    out = Path(spec.train.out)
    check(spec, out / name if name else out)
    check_launcher(spec)
    hooks.load()
    if name:
        _check_name(store, name, spec.train.out)
        check_checkpoint_folder(out / name, resume)
    if not (queue or share_device):
        check_free(store.home, spec)
    start = {
        "name": name,
        "resume": str(resume) if resume else None,
        "init_from": str(init_from) if init_from else None,
        "share_device": share_device,
    }
    state: dict[str, Any] = {
        "profile": spec.profile,
        "backend": spec.launch.backend,
        "steps": spec.train.steps,
        "micro": spec.batch.micro,
        "accum": spec.accum,
        "context": spec.batch.context,
        "version": package_version(),
        "host": host_name(),
        "boot": boot_id(),
        "phase": "starting",
        "attempt": 0,
        "hooks_at": 0,
        "started": time.time(),
        "launched": time.monotonic(),
    }
    run = store.create(spec, start, state)
    prepare(spec, run.path)
    ensure_supervisor(run)
    return run


def _check_name(store: RunStore, name: str, out: str) -> None:
    """Whether no living run writes to the folder of that name: a young one has neither checkpoints nor a lock in it."""
    for run in (RunDir(store.runs / id) for id in store.ids()):
        if run.name == name and not run.ended() and run.spec().train.out == out:
            phase = run.summary()["phase"]
            if phase not in (*ENDED, CUT_OFF):
                verb = "rm" if is_on_other_host(run.state()) else "stop"
                raise UserError(
                    f"--name {name}: run {run.id} is {phase} and writes its checkpoints there;"
                    f" choose another, or first: mla-tui {verb} {run.id}"
                )


def ensure_supervisor(run: RunDir) -> None:
    """Return when a supervisor holds the run. Raises ``UserError`` where it cannot or must not."""
    state = run.state()
    if is_locked(run.supervisor_lock) or state.get("phase") in ENDED:
        return
    if not run.is_on_this_boot(state):
        raise UserError(_why_not_here(run))
    run.spec()  # damaged, it is told here and not in the console of a supervisor that dies of it
    make_private_dir(run.path)
    start_supervisor(run)
    deadline = time.monotonic() + STARTUP_PATIENCE
    while time.monotonic() < deadline:
        state = run.state()
        if state.get("phase") in ENDED:
            return
        if is_locked(run.supervisor_lock) and (is_alive(state.get("supervisor")) or _answers(run)):
            return
        time.sleep(0.02)
    raise UserError(f"run {run.id}: its supervisor did not start; see {run.console_path}")


def _answers(run: RunDir) -> bool:
    """Whether a supervisor listens: on a full disk it cannot write into the state who it is."""
    try:
        wire.connect(run.socket_path).close()
    except OSError:
        return False
    return True


def run_pending_hooks(run: RunDir) -> None:
    """Have the hooks of an ended run of this host run that its supervisor, killed, could not run any more."""
    if (
        run.ended()
        and not is_on_other_host(run.state())
        and hooks.has_pending(run)
        and not is_locked(run.supervisor_lock)
    ):
        start_supervisor(run)


def resume_run(run: RunDir) -> None:
    """Start again a run of this host that was cut off, by a reboot too: it goes on from its last checkpoint.

    Raises ``UserError`` for a run that was not cut off, and for one of another host.
    """
    facts = run.status()
    if is_on_other_host(facts) or not facts.get("host"):
        raise UserError(_why_not_here(run))
    if facts["phase"] != CUT_OFF:
        raise UserError(f"run {run.id}: is {facts['phase']} and was not cut off; there is nothing to resume")
    if not run.is_on_this_boot():
        lock = Lock(run.supervisor_lock)
        if lock.acquire(timeout=0.5):  # else somebody else has just done it
            try:
                if not run.is_on_this_boot():  # the other may have done it between our look and our lock
                    _make_ours(run)
            finally:
                lock.release()
    ensure_supervisor(run)


def _make_ours(run: RunDir) -> None:
    """Make a run of an earlier boot one of this boot. What it is killed within can be done again."""
    state, facts = run.state(), run.status()
    attempt = facts.get("attempt") or 0
    if attempt and (facts.get("exit") or {}).get("attempt") != attempt:  # its trainer could not say why it ended
        log = LogWriter(run.log_path, attempt)
        log.write("exit", code=None, signal=None, why=REBOOTED)
        log.close()
    write_json(run.state_path, {**state, "boot": boot_id(), "supervisor": None, "trainer": None})


def _why_not_here(run: RunDir) -> str:
    """Why no supervisor is started for a run of another host or boot, and what to do instead."""
    facts = run.status()
    if facts.get("host") == host_name():
        return (
            f"run {run.id}: was cut off: {REBOOTED}; go on with: mla-tui resume {run.id},"
            f" or forget it with: mla-tui rm {run.id}"
        )
    checkpoint = facts.get("checkpoint")
    here = f"go on here with: mla-tui launch --resume {checkpoint}" if checkpoint else "it has saved no checkpoint yet"
    if facts.get("host"):
        return f"run {run.id}: is on host {facts['host']}; resume it there with: mla-tui resume {run.id}; or {here}"
    return f"run {run.id}: its state.json is damaged, so its host is not known; {here}"
