"""Where jobs live on disk: finding, listing and creating their directories."""

from __future__ import annotations

import calendar
import contextlib
import errno
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.jobs.files import read_json, write_json
from engine.jobs.log import read_all
from engine.jobs.own import check_own, make_own, objection
from engine.jobs.process import is_alive, is_locked, this_boot, this_host
from engine.jobs.status import CUT_OFF, ENDED, fold, sane
from profiles.errors import UserError

if TYPE_CHECKING:
    from profiles.spec import RunSpec

COLUMNS = (
    *("id", "name", "phase", "reason", "step", "steps", "loss", "val_loss", "tok_s", "micro", "accum", "context"),
    *("backend", "profile", "checkpoint", "attempt", "supervisor", "trainer", "started", "ended", "version", "host"),
)
LOG_TAIL = 1 << 18  # enough to hold the last records of any job
STAMP, STAMP_LENGTH = "%Y%m%d-%H%M%S", 15  # how an id begins
LAUNCH_SECONDS = 10  # in which a new job's supervisor is awaited
REBOOTED = "the machine was rebooted"


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
        self.home = path.parent.parent
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
        """The flat facts ``ls --json`` gives."""
        facts = self.facts()
        return {key: facts.get(key) for key in COLUMNS}

    def facts(self) -> dict[str, Any]:
        """All that state and log say. A job whose supervisor is gone is read from the end of its log."""
        state = self.state()
        here = self.is_here(state)
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
            fold(state, record)

    def _say_what_is_known(self, state: dict[str, Any]) -> None:
        """Phase and reason of a run that has not ended and of which no process is seen alive."""
        if is_elsewhere(state):  # whether it lives cannot be known from here
            state["reason"] = f"on host {state['host']}"
        elif not self.is_here(state) and state.get("boot"):
            state.update(phase=CUT_OFF, reason=REBOOTED)
        elif not _just_launched(state):
            state.update(phase=CUT_OFF, reason="neither trainer nor supervisor is alive")

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
        starting = not is_elsewhere(summary) and summary["phase"] not in (*ENDED, CUT_OFF)
        if living or locked or starting:
            raise UserError(f"job {self.id}: is {summary['phase']}; stop it first: mla-tui stop {self.id}")
        shutil.rmtree(self.path)


class Store:
    """All jobs of one person on one machine."""

    def __init__(self, home: Path | None = None) -> None:
        self.home = (home or default_home()).absolute()
        self.jobs = self.home / "jobs"

    def ids(self) -> list[str]:
        """Newest first; ids sort by time. Raises ``UserError`` where the jobs cannot, or must not, be read."""
        return [id for id, stranger in self._entries() if not stranger]

    def strangers(self) -> list[str]:
        """A line for each thing among the jobs that is left alone: a link, or another user's directory."""
        return [stranger for _, stranger in self._entries() if stranger]

    def _entries(self) -> list[tuple[str, str | None]]:
        """The directories among the jobs, and what is said against them."""
        check_own(self.home, self.jobs)
        try:
            with os.scandir(self.jobs) as entries:
                folders = [e for e in entries if e.is_dir() and not e.name.startswith(".")]
                return sorted(((e.name, objection(Path(e.path))) for e in folders), reverse=True)
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
        entries = self._entries()
        if stranger := dict(entries).get(text):
            raise UserError(stranger)
        ids = [id for id, stranger in entries if not stranger]
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
        beside = self.jobs / f".new-{os.getpid()}-{time.monotonic_ns()}"
        try:
            make_own(self.home, parents=True)
            make_own(self.jobs)
            beside.mkdir(mode=0o700)
            write_json(beside / "spec.json", {**spec.to_dict(), "start": start})
            while True:
                id = f"{_next_stamp(self.ids())}-{spec.profile}"
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
        except OSError as error:
            shutil.rmtree(beside, ignore_errors=True)
            raise UserError(
                f"{self.jobs}: cannot create a job: {error.strerror}; set MLA_TUI_HOME to a directory you can write to"
            ) from None


def is_elsewhere(state: dict[str, Any]) -> bool:
    """Whether the job is another host's, by its state or summary: its processes can be neither seen nor started."""
    return state.get("host") not in (None, this_host())


def _next_stamp(ids: list[str]) -> str:
    """Now, in UTC, or the second after the newest of ``ids``: they sort by time, also where the clock was set back."""
    now = int(time.time())
    for id in ids:
        with contextlib.suppress(ValueError):
            now = max(now, calendar.timegm(time.strptime(id[:STAMP_LENGTH], STAMP)) + 1)
            break
    return time.strftime(STAMP, time.gmtime(now))


def _just_launched(state: dict[str, Any]) -> bool:
    """A new job has no process for the moment between its creation and its supervisor's first breath.

    Measured by the clock that nobody can set (it counts from boot, for all processes).
    """
    launched, supervisor = state.get("launched"), state.get("supervisor") or {}
    return supervisor.get("pid") is None and launched is not None and 0 <= time.monotonic() - launched < LAUNCH_SECONDS
