"""Launches a run: checks the spec, creates the run's directory and starts a detached supervisor. Resumes runs too."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from data.splits import fingerprint_of, open_splits
from engine.checkpoints.resume_source import check_same_data
from engine.events import wire
from engine.events.log import LogWriter
from engine.events.phases import CUT_OFF, DAMAGED, STARTING, has_ended, is_active
from engine.events.run_dir import REBOOTED, RunDir, is_on_other_host
from engine.events.start_supervisor import start_supervisor
from engine.events.status import Launch, RunStatus
from engine.events.types import Exit
from engine.host.private_dirs import make_private_dir
from engine.host.process import Lock, boot_id, host_name, is_alive, is_locked
from engine.host.struct_json import write_struct
from engine.host.version import VERSION
from engine.memory.hardware import Hardware, hardware_for
from engine.preflight import (
    check_checkpoint_folder,
    check_memory,
    check_spec,
    check_tokenizer,
    report_slow,
    resolve_spec,
)
from engine.runs import hooks
from engine.runs.device_locks import check_free, devices_of, holder, tune_on
from engine.runs.launchers import check_hosts, check_launcher, write_hostfile
from engine.runs.store import RunStore
from profiles.errors import UserError
from profiles.names import check_name

if TYPE_CHECKING:
    from profiles.spec import RunSpec

STARTUP_TIMEOUT = 60.0  # seconds for a new supervisor to acquire its lock; on a quiet machine it takes 0.2


def launch(
    store: RunStore,
    spec: RunSpec,
    *,
    name: str | None = None,
    resume: Path | None = None,
    init_from: Path | None = None,
    queue: bool = False,
    share_device: bool = False,
    force: bool = False,
    notify: Callable[[str], None] = lambda line: None,
    data_changed: bool = False,
) -> RunDir:
    """Start ``spec`` as a run in its own processes. Raises ``UserError`` before anything is created.

    A device in use by another run is an error; with ``queue`` the run waits for it, with ``share_device`` it shares it.
    ``force`` starts a run that cannot fit into memory, and one whose other hosts do not answer. ``notify`` gets a line
    about a run that needs more memory than is free, about ids that were not looked at, and where torch.compile is off.
    With ``data_changed`` the data may be other than that of the checkpoint ``resume``.
    """
    open_spec, spec = spec, resolve_spec(spec)
    at_start = _when_device_is_free(store.home, spec) if queue else None
    if at_start is not None:
        spec = resolve_spec(open_spec, at_start)
    if name is not None:
        check_name("--name", name)
    out = Path(spec.train.out)
    check_spec(spec, out / name if name else out, notify)
    check_launcher(spec)
    if not force:
        check_hosts(spec)
    if resume is None:
        check_tokenizer(spec)
    # What is resumed has trained already, and settles by itself.
    check_memory(spec, store.home, notify, insists=force or resume is not None, hardware=at_start)
    report_slow(spec, notify)
    if resume:
        check_same_data(fingerprint_of(spec, open_splits(spec)), resume, data_changed)
    hooks.load()
    if name:
        _check_name(store, name, spec.train.out)
        check_checkpoint_folder(out / name, resume)
    if not (queue or share_device):
        check_free(store.home, spec)
    elif share_device and (user := tune_on(store.home, spec)):
        notify(f"{user} measures on the same device; what it finds beside this run is too slow")
    how = Launch(
        name=name,
        resume=str(resume) if resume else None,
        init_from=str(init_from) if init_from else None,
        share_device=share_device,
        data_changed=data_changed,
    )
    state = RunStatus(
        profile=spec.profile,
        backend=spec.launch.backend,
        steps=spec.train.steps,
        micro=spec.batch.micro,
        accum=spec.accum,
        context=spec.batch.context,
        version=VERSION,
        host=host_name(),
        boot=boot_id(),
        phase=STARTING,
        hooks_at=0,
        started=time.time(),
        launched=time.monotonic(),
    )
    run = store.create(spec, how, state)
    write_hostfile(spec, run.path)
    ensure_supervisor(run)
    return run


def _when_device_is_free(home: Path, spec: RunSpec) -> Hardware | None:
    """Return the memory that a queued run finds: what is free now and what the run frees that it waits for.

    None where it does not have to wait, or nothing is known of the other run's trainer.
    """
    for device in devices_of(spec):
        if (other := holder(home, device)) is not None:
            trainer = RunDir(home / "runs" / other).trainer_identity()
            if trainer is not None and is_alive(trainer):
                return hardware_for(trainer.pid, spec.launch.gpus_per_node)
    return None


def _check_name(store: RunStore, name: str, out: str) -> None:
    """Raise ``UserError`` where an active run writes to that folder; a new run has no checkpoint or lock in it yet."""
    for run in (RunDir(store.runs / id) for id in store.ids()):
        if run.name == name and not run.ended() and run.spec().train.out == out:
            phase = run.summary().phase
            if is_active(phase):
                verb = "rm" if is_on_other_host(run.state()) else "stop"
                raise UserError(
                    f"--name {name}: run {run.id} is {phase} and writes its checkpoints there;"
                    f" choose another name, or first run: mla-tui {verb} {run.id}"
                )


def ensure_supervisor(run: RunDir) -> None:
    """Start a supervisor unless the run has one or has ended. Raises ``UserError`` where that is not possible here."""
    state = run.state()
    if run.has_supervisor() or has_ended(state.phase):
        return
    if not run.is_on_this_boot(state):
        raise UserError(_not_here(run))
    run.spec()  # if it is damaged, fail here and not in the supervisor's console
    make_private_dir(run.path)
    process = start_supervisor(run)
    deadline = time.monotonic() + STARTUP_TIMEOUT
    while time.monotonic() < deadline:
        has_exited, state = process.poll() is not None, run.state()
        if has_ended(state.phase):
            return
        if is_locked(run.supervisor_lock):
            if is_alive(state.supervisor) or _is_listening(run):
                return
        elif has_exited:
            raise UserError(f"run {run.id}: its supervisor did not start; see {run.console_path}")
        time.sleep(0.02)
    raise UserError(
        f"run {run.id}: its supervisor is still starting after {STARTUP_TIMEOUT:g} s; see later whether it has with:"
        f" mla-tui status {run.id}"
    )


def _is_listening(run: RunDir) -> bool:
    """Whether a supervisor listens on the socket. On a full disk it cannot write its identity into the state."""
    try:
        wire.connect(run.socket_path).close()
    except OSError:
        return False
    return True


def run_pending_hooks(run: RunDir) -> None:
    """Start a supervisor for an ended run of this host whose supervisor was killed before it had run all hooks."""
    if run.ended() and not is_on_other_host(run.state()) and hooks.has_pending(run) and not run.has_supervisor():
        start_supervisor(run)


def resume_run(run: RunDir) -> None:
    """Restart a cut-off run of this host from its last checkpoint; a reboot may have cut it off.

    Raises ``UserError`` for a run that is not cut off and for a run of another host.
    """
    summary = run.summary()
    if is_on_other_host(summary) or not summary.host:
        raise UserError(_not_here(run))
    if summary.phase != CUT_OFF:
        raise UserError(f"run {run.id}: is {summary.phase}, not cut off; there is nothing to resume")
    if not run.is_on_this_boot():
        lock = Lock(run.supervisor_lock)
        if lock.acquire(timeout=0.5):  # else another process is resuming it
            try:
                if not run.is_on_this_boot():  # another process may have done it before we got the lock
                    _move_to_this_boot(run)
            finally:
                lock.release()
    ensure_supervisor(run)


def _move_to_this_boot(run: RunDir) -> None:
    """Rewrite the state of a run of an earlier boot for this boot. Idempotent: it may be killed at any point."""
    state, now = run.state(), run.current_state()
    if now.attempt and (now.exit is None or now.exit.attempt != now.attempt):  # its trainer could not log its exit
        log = LogWriter(run.log_path, now.attempt)
        log.write(Exit(why=REBOOTED))
        log.close()
    write_struct(run.state_path, replace(state, boot=boot_id(), supervisor=None, trainer=None))


def check_not_cut_off(run: RunDir) -> None:
    """Raise ``UserError`` for a run that was cut off: only ``resume`` restarts it, no other request."""
    summary = run.summary()
    if summary.phase == CUT_OFF:
        raise UserError(_not_here(run) if not run.is_on_this_boot() else _cut_off(run, summary.reason))


def _cut_off(run: RunDir, reason: str | None) -> str:
    return (
        f"run {run.id}: was cut off: {reason}; continue it with: mla-tui resume {run.id},"
        f" or remove it with: mla-tui rm {run.id}"
    )


def _not_here(run: RunDir) -> str:
    """The error for a run of another host or boot: why no supervisor is started, and what to do."""
    summary = run.summary()
    if summary.phase == DAMAGED:
        return f"run {run.id}: {summary.reason}"
    if summary.host == host_name():
        return _cut_off(run, REBOOTED)
    checkpoint = summary.checkpoint
    here = (
        f"continue here with: mla-tui launch --resume {shlex.quote(checkpoint)}"
        if checkpoint
        else "it has no checkpoint yet"
    )
    if summary.host and has_ended(summary.phase):
        return f"run {run.id}: has {summary.phase}, on host {summary.host}; {here}"
    if summary.host:
        return f"run {run.id}: is on host {summary.host}; resume it there with: mla-tui resume {run.id}; or {here}"
    return f"run {run.id}: its state.json is damaged, so its host is unknown; {here}"
