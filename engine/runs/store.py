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

from engine.events.run_dir import Job
from engine.host.files import write_json
from engine.host.private_dirs import check_own, make_own, objection
from profiles.errors import UserError

if TYPE_CHECKING:
    from profiles.spec import RunSpec

STAMP, STAMP_LENGTH = "%Y%m%d-%H%M%S", 15  # how an id begins


def default_home() -> Path:
    home = os.environ.get("MLA_TUI_HOME")
    if home:
        return Path(home).expanduser().absolute()
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser().absolute() / "mla-tui"


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


def _next_stamp(ids: list[str]) -> str:
    """Now, in UTC, or the second after the newest of ``ids``: they sort by time, also where the clock was set back."""
    now = int(time.time())
    for id in ids:
        with contextlib.suppress(ValueError):
            now = max(now, calendar.timegm(time.strptime(id[:STAMP_LENGTH], STAMP)) + 1)
            break
    return time.strftime(STAMP, time.gmtime(now))
