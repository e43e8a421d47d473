"""Reads the directory of a run: its paths, spec, state and log."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from engine.events.labels import read_labels
from engine.events.phases import CUT_OFF, DAMAGED, RECOVERING, STARTING, has_ended, is_active, makes_steps, phase_of
from engine.events.status import Launch, ProcessStatus, RunStatus, Summary
from engine.host.disk_space import is_full
from engine.host.files import fault, read_json
from engine.host.process import (
    Lock,
    ProcessIdentity,
    boot_id,
    command_line,
    host_name,
    is_alive,
    is_locked,
    is_visible,
)
from engine.host.struct_json import DAMAGED_JSON, intact, read_intact, read_struct
from profiles.errors import UserError
from profiles.names import check_name
from profiles.printable import one_line
from profiles.reader import read_bytes

if TYPE_CHECKING:
    from profiles.spec import RunSpec

LOG_TAIL = 1 << 18  # bytes; enough for the last records of any run
LAUNCH_TIMEOUT = 10  # seconds for the supervisor of a new run to start
REBOOTED = "the machine was rebooted"
REMOVED = "was removed"
_REMOVED = ".removed-"  # the start of the name that a directory has while it is deleted
_SHOWN = ("name", "phase", "reason", "backend", "profile", "version", "host")  # texts of the state, on one line
DISK_FULL = "the disk is full; the log of this run goes on when there is space"
EXIT_UNHANDLED = "its trainer has exited; its supervisor has not handled that yet"


class RunDir:
    """The directory of one run. Every method reads from disk; nothing is cached."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.name
        self.home = path.parent.parent
        self.log_path = path / "events.jsonl"
        self.commands_path = path / "commands.jsonl"
        self.state_path = path / "state.json"
        self.console_path = path / "console.log"
        self.supervisor_lock = path / "supervisor.lock"
        self.trainer_lock = path / "trainer.lock"
        self.trainer_identity_path = path / "trainer.json"  # the process that holds trainer.lock
        self.socket_path = path / "log.sock"

    @property
    def name(self) -> str:
        return self.launch().name or self.id

    @property
    def shown_name(self) -> str:
        """What the user has renamed the run to, else its name."""
        return read_labels(self.path).name or self.name

    def state(self) -> RunStatus:
        """Return ``state.json``; where it is damaged what the log says, with a line in ``damage``."""
        state = read_intact(self.state_path, RunStatus)
        if state is None or not state.phase:
            from engine.events.state_rebuild import rebuilt_state

            state = rebuilt_state(self)
            self._apply_log_tail(state)
        elif has_ended(state.phase) and state.at < self._log_size():  # of another time or run: the log goes on
            self._apply_log_tail(state, state.at)
        if state.restarts_at is None and state.checkpoint:  # written by an older version
            from engine.events.status_updates import step_of

            state.restarts_at = step_of(state.checkpoint)
        for name in _SHOWN:
            if text := getattr(state, name):
                setattr(state, name, one_line(text))
        if state.boot == boot_id():  # this machine, whatever it was called then, or is called in another container
            state.host = host_name()
        state.supervisor, state.trainer = self._own(state.supervisor), self._own(state.trainer)
        return state

    def launch(self) -> Launch:
        """Return how the run was launched, without fields of the wrong type."""
        return intact(read_json(self.path / "spec.json").get("start"), Launch) or Launch()

    def trainer_identity(self) -> ProcessIdentity | None:
        """Return the process that holds the trainer's lock; None where it has not said so, or not legibly."""
        return self._own(read_struct(self.trainer_identity_path, ProcessIdentity))

    def _own(self, process: ProcessIdentity | None) -> ProcessIdentity | None:
        """Return ``process``; None where it was started for another directory, of which this one is a copy."""
        if process is None or not is_visible(process):
            return process
        words = map(Path, command_line(process.pid))
        served = [path for path in words if path.is_absolute() and path.parent.name == self.path.parent.name]
        return None if served and not any(map(self._is_here, served)) else process

    def _is_here(self, path: Path) -> bool:
        try:
            return path.samefile(self.path)
        except OSError:
            return False

    def has_supervisor(self) -> bool:
        """Return whether a supervisor is alive here: its lock is held, or its process runs whose lock was deleted."""
        return is_locked(self.supervisor_lock) or is_alive(self.state().supervisor)

    def has_trainer(self) -> bool:
        """Return whether a trainer is alive here: its lock is held, or its process runs whose lock was deleted."""
        return is_locked(self.trainer_lock) or is_alive(self.trainer_identity())

    def has_invisible_trainer(self) -> bool:
        """Return whether a trainer in another container is alive, which only a supervisor there can watch."""
        trainer = self.trainer_identity()
        return trainer is not None and not is_visible(trainer) and is_locked(self.trainer_lock)

    def spec(self) -> RunSpec:
        """Return the resolved spec. Raise ``UserError`` if it is missing or damaged."""
        from profiles.spec import RunSpec

        content = read_json(self.path / "spec.json")
        if not content:
            self.check_exists()
            raise UserError(f"{self.path / 'spec.json'}: missing or damaged; remove the run with: mla-tui rm {self.id}")
        content.pop("start", None)
        if name := self.launch().name:
            check_name(f"{self.id}/spec.json: start: name", name)
        return RunSpec.from_dict(content, f"{self.id}/spec.json")

    def live_spec(self) -> RunSpec:
        """Return the spec with the edits made so far, as the trainer logged it last. Raise ``UserError``."""
        from profiles.spec import check_value

        source = f"{self.id}/events.jsonl"
        tables: dict[str, dict[str, Any]] = {}
        for key, value in (self.current_state().live or {}).items():
            table, _, name = key.partition(".")
            tables.setdefault(table, {})[name] = check_value(source, key, value)
        return self.spec().with_values(source, **tables)

    def data_path(self, digest: str) -> Path:
        """Return the file that describes the shards whose fingerprint has this ``digest`` (``data/fingerprint.py``)."""
        return self.path / f"data-{digest}.json"

    def is_on_this_boot(self, state: RunStatus | None = None) -> bool:
        """Return whether the run's processes were started on this boot of this host; only then are its pids valid."""
        state = self.state() if state is None else state
        return state.host == host_name() and state.boot == boot_id()

    def ended(self) -> bool:
        return has_ended(self.state().phase)

    def current_state(self) -> RunStatus:
        """Return the state, brought up to date by the end of the log unless a supervisor does that.

        ``seen`` is the time of the last record, if the log was read.
        """
        return self._current()[0]

    def summary(self) -> Summary:
        """Return what users see of the run: its state, and whether its processes are alive."""
        state, supervisor, trainer = self._current()
        state.id = self.id
        if not (supervisor.alive or trainer.alive or has_ended(state.phase)):
            self._infer_phase(state)
        if is_active(state.phase) and not is_on_other_host(state):
            # Another trainer may have started since the state was written: it holds the lock.
            if _is_exit_unhandled(state, trainer) and not self.has_trainer():
                from engine.events.status_updates import go_back

                state.phase, state.reason = RECOVERING, EXIT_UNHANDLED
                go_back(state)
            if is_full(self.path):  # its processes can log neither that nor what they do
                state.reason, state.tok_s = f"{self.home}: {DISK_FULL}", None
        lr, damage = self._read_lr()
        if damage:
            state.damage = damage
            if state.phase == CUT_OFF:
                state.phase, state.reason = DAMAGED, damage
        summary, labels = Summary.of(state, supervisor, trainer), read_labels(self.path)
        summary.lr, summary.tags, summary.note = lr, labels.tags, labels.note
        summary.name = labels.name or summary.name
        if not makes_steps(state.phase) or state.stalled or is_on_other_host(state):
            summary.tok_s = None  # the speed of the last step is not one of now
        return summary

    def _current(self) -> tuple[RunStatus, ProcessStatus, ProcessStatus]:
        """Return the state as ``current_state`` does, and whether supervisor and trainer are alive."""
        state = self.state()
        supervisor = self._process_status(state, state.supervisor, self.supervisor_lock)
        trainer = self._process_status(state, state.trainer, self.trainer_lock)
        up_to_date = supervisor.alive and not _is_exit_unhandled(state, trainer)
        if not up_to_date and not has_ended(state.phase):
            self._apply_log_tail(state)
        return state, supervisor, trainer

    def _process_status(self, state: RunStatus, process: ProcessIdentity | None, lock: Path) -> ProcessStatus:
        """Return whether ``process`` is alive. Of one in another container only its ``lock`` says so."""
        if process is None:
            return ProcessStatus()
        if is_on_other_host(state):
            return ProcessStatus(process.pid, None, is_visible(process))
        if not self.is_on_this_boot(state):
            return ProcessStatus(process.pid)
        visible = is_visible(process)
        return ProcessStatus(process.pid, is_alive(process) if visible else is_locked(lock), visible)

    def last_phase(self) -> str:
        """Return the phase recorded last, whether or not a process is alive."""
        state = self.state()
        self._apply_log_tail(state)
        return state.phase

    def _apply_log_tail(self, state: RunStatus, since: int = 0) -> None:
        from engine.events.log import read_all  # here, because ls reads no log of a run that has ended
        from engine.events.status_updates import update_status_by_all

        if events := list(read_all(self.log_path, max(since, self._log_size() - LOG_TAIL))):
            update_status_by_all(state, events)
            state.seen = events[-1][1].t

    def _infer_phase(self, state: RunStatus) -> None:
        """Set phase and reason of a run that has not ended and has no process alive on this host."""
        if state.host is not None and is_on_other_host(state):  # its processes cannot be checked from here
            state.reason = last_seen(state.phase, state.seen or state.started, state.host)
        elif not self.is_on_this_boot(state) and state.boot:
            state.phase, state.reason = CUT_OFF, REBOOTED
        elif not (_just_launched(state) or self.has_supervisor() or self.has_trainer()):
            # A process that holds a lock is alive, even if a full disk kept its pid out of the state.
            state.phase, state.reason = CUT_OFF, "neither trainer nor supervisor is alive"

    def _read_lr(self) -> tuple[float | None, str | None]:
        """Return the learning rate in ``spec.json``, and a line where the file is not legible.

        Such a run was removed in part, or never was one.
        """
        path = self.path / "spec.json"
        try:
            if spec := msgspec.json.decode(read_bytes(path), type=dict[str, Any]):
                optim = spec.get("optim")
                lr = optim.get("lr") if isinstance(optim, dict) else None
                return (lr if type(lr) in (int, float) else None), None
        except (OSError, UserError, *DAMAGED_JSON):
            pass
        if not self.path.exists():
            return None, REMOVED
        return None, f"spec.json is {fault(path)}; remove the run with: mla-tui rm {self.id}"

    def _log_size(self) -> int:
        try:
            return self.log_path.stat().st_size
        except OSError:
            return 0

    def check_remove(self) -> None:
        """Raise ``UserError`` while the run is active."""
        summary = self.summary()
        # The locks also cover what pids cannot: a process on another host, or one that has not written its state yet.
        alive = summary.trainer.alive or summary.supervisor.alive
        locked = self.has_trainer() or self.has_supervisor()
        starting = not is_on_other_host(summary) and is_active(summary.phase)
        if has_ended(summary.phase) and (alive or locked):
            raise UserError(f"run {self.id}: has {summary.phase}, and its processes still end; try again in a moment")
        if alive or locked or starting:
            raise UserError(f"run {self.id}: is {summary.phase}; stop it first: mla-tui stop {self.id}")

    def remove(self) -> None:
        """Delete the run's directory but not its checkpoints. Raise ``UserError`` while the run is active.

        To others it goes at once, so that nothing resumes what is left of it. What a killed removal has left goes too.
        """
        import shutil  # here, because ls removes nothing

        self.check_remove()
        remove_rest(self.path.parent)
        aside, lock = self.path.with_name(f"{_REMOVED}{self.id}"), Lock(self.supervisor_lock)
        try:
            while not self._is_locked_by(lock):  # something resumes it
                self.check_remove()
            os.rename(self.path, aside)
        except OSError as error:
            self.check_exists()
            raise UserError(f"{error.filename or self.path}: cannot be removed: {error.strerror or error}") from None
        finally:
            lock.release()
        try:
            with contextlib.suppress(FileNotFoundError):  # another removal deletes what is left, too
                shutil.rmtree(aside)
        except OSError as error:
            raise UserError(
                f"run {self.id}: is removed, but {aside}, what is left of it, cannot be deleted:"
                f" {error.strerror or error}; the next mla-tui rm tries again"
            ) from None

    def _is_locked_by(self, lock: Lock) -> bool:
        """Acquire ``lock`` of this run, so that no supervisor starts; return whether that was possible."""
        with contextlib.suppress(OSError):  # something that is no lock has its name: no supervisor can hold it either
            return lock.acquire(timeout=0.1)
        return True

    def check_exists(self) -> None:
        """Raise ``UserError`` where the run was removed since it was found."""
        if not self.path.exists():
            raise UserError(f"run {self.id}: {REMOVED}")


def remove_rest(runs: Path) -> None:
    """Delete what removals that were interrupted have left in the folder of all runs, as far as that is possible."""
    import shutil  # here, because ls removes nothing

    for left in runs.glob(f"{_REMOVED}*"):
        shutil.rmtree(left, ignore_errors=True)


def is_on_other_host(state: RunStatus | Summary) -> bool:
    """Return whether a run is on another host, by its state or summary. We cannot see or start processes there."""
    return state.host not in (None, host_name())


def _is_exit_unhandled(state: RunStatus, trainer: ProcessStatus) -> bool:
    """Return whether the trainer has exited and the phase is still one in which it works.

    It starts until it logs its first phase. A run that waits for its next trainer is ``starting`` too, but the exit of
    the one before is then logged.
    """
    if state.trainer is None or trainer.alive:
        return False
    last_exit = state.exit.attempt if state.exit else None
    return (state.phase == STARTING and last_exit != state.trainer.attempt) or phase_of(state.phase).trains


def last_seen(phase: str, t: float | None, host: str) -> str:
    """Return what is known of a run of another host: ``last seen running 17:02 on HOST``; the date if not today."""
    if t is None:
        return f"last seen {phase} on {host}"
    then, today = time.localtime(t), time.localtime()
    when = time.strftime("%H:%M" if then[:3] == today[:3] else "%Y-%m-%d %H:%M", then)
    return f"last seen {phase} {when} on {host}"


def _just_launched(state: RunStatus) -> bool:
    """Return whether the run is so new that its supervisor may not have recorded its pid yet.

    The monotonic clock is the same for all processes and cannot be set.
    """
    launched = state.launched
    return state.supervisor is None and launched is not None and 0 <= time.monotonic() - launched < LAUNCH_TIMEOUT
