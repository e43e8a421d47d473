"""One run's directory: the paths in it, and what its spec, state and log say."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.events.log import read_all
from engine.events.summary import CUT_OFF, ENDED, drop_invalid, update_summary
from engine.host.files import read_json
from engine.host.process import boot_id, host_name, is_alive, is_locked
from profiles.errors import UserError

if TYPE_CHECKING:
    from profiles.spec import RunSpec

COLUMNS = (
    *("id", "name", "phase", "reason", "step", "steps", "loss", "val_loss", "tok_s", "micro", "accum", "context"),
    *("backend", "profile", "checkpoint", "attempt", "supervisor", "trainer", "started", "ended", "version", "host"),
)
LOG_TAIL = 1 << 18  # enough to hold the last records of any run
LAUNCH_SECONDS = 10  # in which a new run's supervisor is awaited
REBOOTED = "the machine was rebooted"


class RunDir:
    """One run's directory. Nothing is cached: every answer is read from disk."""

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
        self.trainer_identity_path = path / "trainer.json"  # who holds trainer.lock
        self.socket_path = path / "log.sock"

    @property
    def name(self) -> str:
        return str(self.start().get("name") or self.id)

    def state(self) -> dict[str, Any]:
        return drop_invalid(read_json(self.state_path))

    def start(self) -> dict[str, Any]:
        """How the run was started: ``name``, ``out`` (its checkpoint folder), ``resume``, ``init_from``."""
        start = read_json(self.path / "spec.json").get("start")
        return start if isinstance(start, dict) else {}

    def spec(self) -> RunSpec:
        """The resolved spec. Raises ``UserError`` where it is damaged."""
        from profiles.spec import RunSpec

        content = read_json(self.path / "spec.json")
        if not content:
            raise UserError(f"{self.path / 'spec.json'}: missing or damaged; remove the run with: mla-tui rm {self.id}")
        content.pop("start", None)
        return RunSpec.from_dict(content, f"{self.id}/spec.json")

    def is_on_this_boot(self, state: dict[str, Any] | None = None) -> bool:
        """Whether the run's processes were started on this host, on this boot: only then do pids mean anything."""
        state = self.state() if state is None else state
        return state.get("host") == host_name() and state.get("boot") == boot_id()

    def ended(self) -> bool:
        return self.state().get("phase") in ENDED

    def summary(self) -> dict[str, Any]:
        """The flat facts ``ls --json`` gives."""
        facts = self.status()
        return {key: facts.get(key) for key in COLUMNS}

    def status(self) -> dict[str, Any]:
        """All that state and log say. A run whose supervisor is gone is read from the end of its log."""
        state = self.state()
        here = self.is_on_this_boot(state)
        state.setdefault("id", self.id)
        state.setdefault("phase", CUT_OFF)
        for role in ("supervisor", "trainer"):
            who = state.get(role) or {}
            state[role] = {"pid": who.get("pid"), "alive": here and is_alive(who)}
        if state["phase"] not in ENDED and not state["supervisor"]["alive"]:
            self._fold_end_of_log(state)
            if state["phase"] not in ENDED and not state["trainer"]["alive"]:
                self._say_what_is_known(state)
        return state

    def last_phase(self) -> str | None:
        """The phase that was written down last, whether anybody lives or not."""
        state = self.state()
        self._fold_end_of_log(state)
        return state.get("phase")

    def _fold_end_of_log(self, state: dict[str, Any]) -> None:
        for _, record in read_all(self.log_path, max(0, self._log_size() - LOG_TAIL)):
            update_summary(state, record)

    def _say_what_is_known(self, state: dict[str, Any]) -> None:
        """Phase and reason of a run that has not ended and of which no process is seen alive."""
        if is_on_other_host(state):  # whether it lives cannot be known from here
            state["reason"] = f"on host {state['host']}"
        elif not self.is_on_this_boot(state) and state.get("boot"):
            state.update(phase=CUT_OFF, reason=REBOOTED)
        elif not _just_launched(state):
            state.update(phase=CUT_OFF, reason="neither trainer nor supervisor is alive")

    def _log_size(self) -> int:
        try:
            return self.log_path.stat().st_size
        except OSError:
            return 0

    def remove(self) -> None:
        """Forget the run. Its checkpoints stay. Raises ``UserError`` while it lives."""
        summary = self.summary()
        # The locks are held for life, and also where pids tell nothing: on another host, or before the first state.
        living = summary["trainer"]["alive"] or summary["supervisor"]["alive"]
        locked = is_locked(self.trainer_lock) or is_locked(self.supervisor_lock)
        starting = not is_on_other_host(summary) and summary["phase"] not in (*ENDED, CUT_OFF)
        if living or locked or starting:
            raise UserError(f"run {self.id}: is {summary['phase']}; stop it first: mla-tui stop {self.id}")
        shutil.rmtree(self.path)


def is_on_other_host(state: dict[str, Any]) -> bool:
    """Whether the run is another host's, by its state or summary: its processes can be neither seen nor started."""
    return state.get("host") not in (None, host_name())


def _just_launched(state: dict[str, Any]) -> bool:
    """A new run has no process for the moment between its creation and its supervisor's first breath.

    Measured by the clock that nobody can set (it counts from boot, for all processes).
    """
    launched, supervisor = state.get("launched"), state.get("supervisor") or {}
    return supervisor.get("pid") is None and launched is not None and 0 <= time.monotonic() - launched < LAUNCH_SECONDS
