"""Starts the supervisor of a run that has none, and resumes a run that was cut off."""

from __future__ import annotations

import shlex
import time

from msgspec.structs import replace

from engine.checkpoints.resume_source import check_not_continued
from engine.events import wire
from engine.events.log import LogWriter
from engine.events.phases import CUT_OFF, DAMAGED, has_ended
from engine.events.run_dir import REBOOTED, RunDir, is_on_other_host
from engine.events.start_supervisor import start_supervisor
from engine.events.types import Exit
from engine.host.private_dirs import make_private_dir
from engine.host.process import Lock, boot_id, host_name, is_alive, is_locked
from engine.host.struct_json import write_struct
from engine.runs import hooks
from profiles.errors import UserError

STARTUP_TIMEOUT = 60.0  # seconds for a new supervisor to acquire its lock; on a quiet machine it takes 0.2


def ensure_supervisor(run: RunDir) -> None:
    """Start a supervisor unless the run has one or has ended. Raises ``UserError`` where that is not possible here."""
    run.check_exists()
    state = run.state()
    if run.has_supervisor() or has_ended(state.phase) or run.has_invisible_trainer():  # that one starts it, there
        return
    if not run.is_on_this_boot(state):
        raise UserError(_not_here(run))
    run.spec()  # if it is damaged, fail here and not in the supervisor's console
    try:
        make_private_dir(run.path)
        process = start_supervisor(run)
    except OSError as error:
        run.check_exists()
        where = f"{error.filename}: " if error.filename else ""
        raise UserError(
            f"run {run.id}: its supervisor cannot be started: {where}{error.strerror or error};"
            f" once that is mended, the run goes on with: mla-tui attach {run.id}"
        ) from None
    deadline = time.monotonic() + STARTUP_TIMEOUT
    while time.monotonic() < deadline:
        has_exited, state = process.poll() is not None, run.state()
        if has_ended(state.phase):
            return
        if is_locked(run.supervisor_lock):
            if is_alive(state.supervisor) or _is_listening(run):
                return
        elif has_exited:
            run.check_exists()
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
    check_not_continued(run)
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
