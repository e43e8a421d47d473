"""Reads the directory of a run: its paths, spec, state and log."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.events.phases import CUT_OFF, DAMAGED, RECOVERING, has_ended, is_active, phase_of
from engine.events.state_checks import drop_invalid, is_process
from engine.host.files import fault, read_json
from engine.host.process import boot_id, host_name, is_alive, is_locked
from profiles.errors import UserError
from profiles.names import check_name

if TYPE_CHECKING:
    from profiles.spec import RunSpec

COLUMNS = (
    *("id", "name", "phase", "reason", "step", "steps", "loss", "val_loss", "bits_per_byte", "tok_s"),
    *(
        "micro",
        "accum",
        "context",
        "backend",
        "profile",
        "checkpoint",
        "attempt",
        "supervisor",
        "trainer",
        "started",
        "ended",
        "version",
        "host",
    ),
    *("seen", "damage"),
)
LOG_TAIL = 1 << 18  # bytes; enough for the last records of any run
LAUNCH_TIMEOUT = 10  # seconds for the supervisor of a new run to start
REBOOTED = "the machine was rebooted"
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
        return str(self.start().get("name") or self.id)

    def state(self) -> dict[str, Any]:
        """Return ``state.json``; where it is damaged what the log says, with a line in ``damage``."""
        state = drop_invalid(read_json(self.state_path))
        if not state.get("phase"):
            from engine.events.state_rebuild import rebuilt_state

            state = rebuilt_state(self)
            self._apply_log_tail(state)
        return state

    def start(self) -> dict[str, Any]:
        """Return how the run was started, without fields of the wrong type.

        The fields are ``name``, ``resume`` and ``init_from`` (paths), ``share_device``, and ``host`` and ``boot`` of
        the launch.
        """
        start = read_json(self.path / "spec.json").get("start")
        texts = ("name", "resume", "init_from", "host", "boot")
        fields = start.items() if isinstance(start, dict) else ()
        return {key: value for key, value in fields if key not in texts or isinstance(value, str | None)}

    def trainer_identity(self) -> dict[str, Any]:
        """Return the process that holds the trainer's lock; empty where it has not said so, or not legibly."""
        identity = read_json(self.trainer_identity_path)
        return identity if is_process(identity) else {}

    def has_supervisor(self) -> bool:
        """Return whether a supervisor is alive here: its lock is held, or its process runs whose lock was deleted."""
        return is_locked(self.supervisor_lock) or is_alive(self.state().get("supervisor"))

    def has_trainer(self) -> bool:
        """Return whether a trainer is alive here: its lock is held, or its process runs whose lock was deleted."""
        return is_locked(self.trainer_lock) or is_alive(self.trainer_identity())

    def spec(self) -> RunSpec:
        """Return the resolved spec. Raise ``UserError`` if it is missing or damaged."""
        from profiles.spec import RunSpec

        content = read_json(self.path / "spec.json")
        if not content:
            raise UserError(f"{self.path / 'spec.json'}: missing or damaged; remove the run with: mla-tui rm {self.id}")
        content.pop("start", None)
        if name := self.start().get("name"):
            check_name(f"{self.id}/spec.json: start: name", name)
        return RunSpec.from_dict(content, f"{self.id}/spec.json")

    def live_spec(self) -> RunSpec:
        """Return the spec with the edits made so far, as the trainer logged it last. Raise ``UserError``."""
        from profiles.spec import check_value

        source = f"{self.id}/events.jsonl"
        tables: dict[str, dict[str, Any]] = {}
        for key, value in (self.status().get("live") or {}).items():
            table, _, name = key.partition(".")
            tables.setdefault(table, {})[name] = check_value(source, key, value)
        return self.spec().with_values(source, **tables)

    def data_path(self, digest: str) -> Path:
        """Return the file that describes the shards whose fingerprint has this ``digest`` (``data/fingerprint.py``)."""
        return self.path / f"data-{digest}.json"

    def is_on_this_boot(self, state: dict[str, Any] | None = None) -> bool:
        """Return whether the run's processes were started on this boot of this host; only then are its pids valid."""
        state = self.state() if state is None else state
        return state.get("host") == host_name() and state.get("boot") == boot_id()

    def ended(self) -> bool:
        return has_ended(self.state().get("phase"))

    def summary(self) -> dict[str, Any]:
        """Return the columns of ``ls --json``."""
        status = self.status()
        return {key: status.get(key) for key in COLUMNS}

    def status(self) -> dict[str, Any]:
        """Return the state of the run, with whether its processes are alive.

        If no supervisor is alive to update the state, or it has not handled the exit of the trainer yet, the end of the
        log is read as well; ``seen`` is then the time of its last record.
        """
        state = self.state()
        this_boot = self.is_on_this_boot(state)
        state["id"] = self.id
        state.setdefault("phase", CUT_OFF)
        attempt = (state.get("trainer") or {}).get("attempt")
        for role in ("supervisor", "trainer"):
            identity = state.get(role) or {}
            state[role] = {"pid": identity.get("pid"), "alive": this_boot and is_alive(identity)}
        if state["supervisor"]["alive"]:
            if _is_exit_unhandled(state, attempt):
                self._apply_log_tail(state)
                # Another trainer may have started since the state was written: it holds the lock.
                if _is_exit_unhandled(state, attempt) and not self.has_trainer():
                    state.update(phase=RECOVERING, reason=EXIT_UNHANDLED)
        elif not has_ended(state["phase"]):
            self._apply_log_tail(state)
            if not has_ended(state["phase"]) and not state["trainer"]["alive"]:
                self._infer_phase(state)
        if damage := self._spec_damage():
            state["damage"] = damage
            if state["phase"] == CUT_OFF:
                state.update(phase=DAMAGED, reason=damage)
        return state

    def last_phase(self) -> str | None:
        """Return the phase recorded last, whether or not a process is alive."""
        state = self.state()
        self._apply_log_tail(state)
        return state.get("phase")

    def _apply_log_tail(self, state: dict[str, Any]) -> None:
        from engine.events.log import read_all  # here, because ls reads no log of a run that has ended
        from engine.events.summary import update_summary

        for _, event in read_all(self.log_path, max(0, self._log_size() - LOG_TAIL)):
            update_summary(state, event)
            state["seen"] = event.t

    def _infer_phase(self, state: dict[str, Any]) -> None:
        """Set phase and reason of a run that has not ended and has no process alive on this host."""
        if is_on_other_host(state):  # its processes cannot be checked from here
            state["reason"] = last_seen(state["phase"], state.get("seen") or state.get("started"), state["host"])
        elif not self.is_on_this_boot(state) and state.get("boot"):
            state.update(phase=CUT_OFF, reason=REBOOTED)
        elif not (_just_launched(state) or self.has_supervisor() or self.has_trainer()):
            # A process that holds a lock is alive, even if a full disk kept its pid out of the state.
            state.update(phase=CUT_OFF, reason="neither trainer nor supervisor is alive")

    def _spec_damage(self) -> str | None:
        """Return a line where the run has no legible ``spec.json``: it was removed in part, or never was a run."""
        path = self.path / "spec.json"
        if read_json(path):
            return None
        return f"spec.json is {fault(path)}; remove the run with: mla-tui rm {self.id}"

    def _log_size(self) -> int:
        try:
            return self.log_path.stat().st_size
        except OSError:
            return 0

    def remove(self) -> None:
        """Delete the run's directory but not its checkpoints. Raise ``UserError`` while the run is active."""
        summary = self.summary()
        # The locks also cover what pids cannot: a process on another host, or one that has not written its state yet.
        alive = summary["trainer"]["alive"] or summary["supervisor"]["alive"]
        locked = self.has_trainer() or self.has_supervisor()
        starting = not is_on_other_host(summary) and is_active(summary["phase"])
        if alive or locked or starting:
            raise UserError(f"run {self.id}: is {summary['phase']}; stop it first: mla-tui stop {self.id}")
        shutil.rmtree(self.path)


def is_on_other_host(state: dict[str, Any]) -> bool:
    """Return whether a run is on another host, by its state or summary. We cannot see or start processes there."""
    return state.get("host") not in (None, host_name())


def last_seen(phase: str, t: float | None, host: str) -> str:
    """Return what is known of a run of another host: ``last seen running 17:02 on HOST``; the date if not today."""
    if t is None:
        return f"last seen {phase} on {host}"
    then, today = time.localtime(t), time.localtime()
    when = time.strftime("%H:%M" if then[:3] == today[:3] else "%Y-%m-%d %H:%M", then)
    return f"last seen {phase} {when} on {host}"


def _is_exit_unhandled(state: dict[str, Any], attempt: int | None) -> bool:
    """Return whether the trainer, of this ``attempt``, has exited and the phase is still one in which it works.

    It starts until it logs its first phase. A run that waits for its next trainer is ``starting`` too, but the exit of
    the one before is then logged.
    """
    if state["trainer"]["pid"] is None or state["trainer"]["alive"]:
        return False
    starts = state["phase"] == "starting" and (state.get("exit") or {}).get("attempt") != attempt
    return starts or phase_of(state["phase"]).trains


def _just_launched(state: dict[str, Any]) -> bool:
    """Return whether the run is so new that its supervisor may not have recorded its pid yet.

    The monotonic clock is the same for all processes and cannot be set.
    """
    launched, supervisor = state.get("launched"), state.get("supervisor") or {}
    return supervisor.get("pid") is None and launched is not None and 0 <= time.monotonic() - launched < LAUNCH_TIMEOUT
