"""Where jobs live on disk: finding, listing and creating their directories."""

from __future__ import annotations

import errno
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.jobs.files import read_json, write_json
from engine.jobs.log import read_all
from engine.jobs.process import is_alive, is_locked, this_boot, this_host
from engine.jobs.status import CUT_OFF, ENDED, fold, sane
from profiles.errors import UserError

if TYPE_CHECKING:
    from profiles.spec import RunSpec

COLUMNS = (
    *("id", "name", "phase", "reason", "step", "steps", "loss", "val_loss", "tok_s", "micro", "accum", "context"),
    *("backend", "profile", "checkpoint", "attempt", "supervisor", "trainer", "started", "ended", "version"),
)
LOG_TAIL = 1 << 18  # enough to hold the last records of any job


def default_home() -> Path:
    home = os.environ.get("MLA_TUI_HOME")
    if home:
        return Path(home).expanduser().absolute()
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser().absolute() / "mla-tui"


class Job:
    """One job's directory. Nothing is cached: every answer is read from disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.name
        self.log_path = path / "events.jsonl"
        self.commands_path = path / "commands.jsonl"
        self.state_path = path / "state.json"
        self.console_path = path / "console.log"
        self.supervisor_lock = path / "supervisor.lock"
        self.trainer_lock = path / "trainer.lock"
        self.trainer_who = path / "trainer.json"  # who holds trainer.lock
        self.socket_path = path / "log.sock"

    @property
    def name(self) -> str:
        return str(self.start().get("name") or self.id)

    def state(self) -> dict[str, Any]:
        return sane(read_json(self.state_path))

    def start(self) -> dict[str, Any]:
        """How the job was started: ``name``, ``out`` (its checkpoint folder), ``resume``, ``init_from``."""
        start = read_json(self.path / "spec.json").get("start")
        return start if isinstance(start, dict) else {}

    def spec(self) -> RunSpec:
        """The resolved spec. Raises ``UserError`` where it is damaged."""
        from profiles.spec import RunSpec

        content = read_json(self.path / "spec.json")
        if not content:
            raise UserError(f"{self.path / 'spec.json'}: missing or damaged; remove the job with: mla-tui rm {self.id}")
        content.pop("start", None)
        return RunSpec.from_dict(content, f"{self.id}/spec.json")

    def is_here(self, state: dict[str, Any] | None = None) -> bool:
        """Whether the job's processes were started on this host, on this boot: only then do pids mean anything."""
        state = self.state() if state is None else state
        return state.get("host") == this_host() and state.get("boot") == this_boot()

    def ended(self) -> bool:
        return self.state().get("phase") in ENDED

    def summary(self) -> dict[str, Any]:
        """The flat facts ``ls --json`` gives. A job whose supervisor is gone is read from the end of its log."""
        state = self.state()
        here = self.is_here(state)
        state.setdefault("id", self.id)
        state.setdefault("phase", CUT_OFF)
        for role in ("supervisor", "trainer"):
            who = state.get(role) or {}
            state[role] = {"pid": who.get("pid"), "alive": here and is_alive(who)}
        if state["phase"] not in ENDED and not state["supervisor"]["alive"]:
            start = max(0, self._log_size() - LOG_TAIL)
            for _, record in read_all(self.log_path, start):
                fold(state, record)
            if state["phase"] not in ENDED and not state["trainer"]["alive"] and not _just_launched(state):
                state["phase"] = CUT_OFF
                state["reason"] = "neither trainer nor supervisor is alive"
        return {key: state.get(key) for key in COLUMNS}

    def _log_size(self) -> int:
        try:
            return self.log_path.stat().st_size
        except OSError:
            return 0

    def remove(self) -> None:
        """Forget the job. Its checkpoints stay. Raises ``UserError`` while it lives."""
        summary = self.summary()
        # The locks are held for life, and also where pids tell nothing: on another host, or before the first state.
        living = summary["trainer"]["alive"] or summary["supervisor"]["alive"]
        locked = is_locked(self.trainer_lock) or is_locked(self.supervisor_lock)
        if living or locked or summary["phase"] not in (*ENDED, CUT_OFF):
            raise UserError(f"job {self.id}: is {summary['phase']}; stop it first: mla-tui stop {self.id}")
        shutil.rmtree(self.path)


class Store:
    """All jobs of one person on one machine."""

    def __init__(self, home: Path | None = None) -> None:
        self.home = (home or default_home()).absolute()
        self.jobs = self.home / "jobs"

    def ids(self) -> list[str]:
        """Newest first; ids sort by time."""
        try:
            with os.scandir(self.jobs) as entries:
                return sorted((e.name for e in entries if e.is_dir() and not e.name.startswith(".")), reverse=True)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"{self.jobs}: cannot be read: {error.strerror}; check MLA_TUI_HOME") from None

    def summaries(self) -> list[dict[str, Any]]:
        return [Job(self.jobs / id).summary() for id in self.ids()]

    def find(self, text: str) -> Job:
        """The job whose id is ``text``, whose name is ``text`` (the newest), or whose id alone holds ``text``.

        ``latest`` is the newest of all. Raises ``UserError``.
        """
        ids = self.ids()
        if not ids:
            raise UserError(f"job {text!r}: there are no jobs in {self.jobs}; start one with: mla-tui launch")
        if not text:
            raise UserError(f"job {text!r}: write a part of an id, a name or latest; the newest is {ids[0]}")
        if text == "latest":
            return Job(self.jobs / ids[0])
        if text in ids:
            return Job(self.jobs / text)
        for id in ids:
            if Job(self.jobs / id).name == text:
                return Job(self.jobs / id)
        matches = [id for id in ids if text in id]
        if len(matches) == 1:
            return Job(self.jobs / matches[0])
        if matches:
            raise UserError(f"job {text!r}: matches {', '.join(matches[:4])}; write more of the id")
        raise UserError(f"job {text!r}: no such job; the newest is {ids[0]} (mla-tui ls shows all)")

    def create(self, spec: RunSpec, start: dict[str, Any], state: dict[str, Any]) -> Job:
        """Make the directory of a new job, whole or not at all. Raises ``UserError``."""
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        beside = self.jobs / f".new-{os.getpid()}-{time.monotonic_ns()}"
        try:
            for folder in (self.home, self.jobs, beside):
                folder.mkdir(mode=0o700, parents=folder == self.home, exist_ok=folder != beside)
            write_json(beside / "spec.json", {**spec.to_dict(), "start": start})
            number = 1
            while True:
                id = f"{stamp}-{spec.profile}" + (f"-{number}" if number > 1 else "")
                write_json(beside / "state.json", {"id": id, **state, "name": start.get("name") or id})
                if not (self.jobs / id).exists():
                    try:
                        os.rename(beside, self.jobs / id)
                        return Job(self.jobs / id)
                    except FileExistsError:
                        pass
                    except OSError as error:
                        if error.errno != errno.ENOTEMPTY:  # another launch of the same second took the id
                            raise
                number += 1
        except OSError as error:
            shutil.rmtree(beside, ignore_errors=True)
            raise UserError(
                f"{self.jobs}: cannot create a job: {error.strerror}; set MLA_TUI_HOME to a directory you can write to"
            ) from None


def _just_launched(state: dict[str, Any]) -> bool:
    """A new job has no process for the moment between its creation and its supervisor's first breath."""
    return state.get("supervisor", {}).get("pid") is None and time.time() - float(state.get("started") or 0) < 10
