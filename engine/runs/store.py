"""Where runs live on disk: finding, listing and creating their directories."""

from __future__ import annotations

import calendar
import contextlib
import errno
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.events.run_dir import RunDir
from engine.host.files import write_json
from engine.host.private_dirs import check_private_dir, make_private_dir, ownership_problem
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


class RunStore:
    """All runs of one person on one machine."""

    def __init__(self, home: Path | None = None) -> None:
        self.home = (home or default_home()).absolute()
        self.runs = self.home / "runs"

    def ids(self) -> list[str]:
        """Newest first; ids sort by time. Raises ``UserError`` where the runs cannot, or must not, be read."""
        return [id for id, stranger in self._entries() if not stranger]

    def foreign_entries(self) -> list[str]:
        """A line for each thing among the runs that is left alone: a link, or another user's directory."""
        return [stranger for _, stranger in self._entries() if stranger]

    def _entries(self) -> list[tuple[str, str | None]]:
        """The directories among the runs, and what is said against them."""
        check_private_dir(self.home, self.runs)
        try:
            with os.scandir(self.runs) as entries:
                folders = [e for e in entries if e.is_dir() and not e.name.startswith(".")]
                return sorted(((e.name, ownership_problem(Path(e.path))) for e in folders), reverse=True)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"{self.runs}: cannot be read: {error.strerror}; check MLA_TUI_HOME") from None

    def summaries(self) -> list[dict[str, Any]]:
        return [RunDir(self.runs / id).summary() for id in self.ids()]

    def find(self, text: str) -> RunDir:
        """The run whose id is ``text``, whose name is ``text`` (the newest), or whose id alone holds ``text``.

        ``latest`` is the newest of all. Raises ``UserError``.
        """
        entries = self._entries()
        if stranger := dict(entries).get(text):
            raise UserError(stranger)
        ids = [id for id, stranger in entries if not stranger]
        if not ids:
            raise UserError(f"run {text!r}: there are no runs in {self.runs}; start one with: mla-tui launch")
        if not text:
            raise UserError(f"run {text!r}: write a part of an id, a name or latest; the newest is {ids[0]}")
        if text == "latest":
            return RunDir(self.runs / ids[0])
        if text in ids:
            return RunDir(self.runs / text)
        for id in ids:
            if RunDir(self.runs / id).name == text:
                return RunDir(self.runs / id)
        matches = [id for id in ids if text in id]
        if len(matches) == 1:
            return RunDir(self.runs / matches[0])
        if matches:
            raise UserError(f"run {text!r}: matches {', '.join(matches[:4])}; write more of the id")
        raise UserError(f"run {text!r}: no such run; the newest is {ids[0]} (mla-tui ls shows all)")

    def create(self, spec: RunSpec, start: dict[str, Any], state: dict[str, Any]) -> RunDir:
        """Make the directory of a new run, whole or not at all. Raises ``UserError``."""
        beside = self.runs / f".new-{os.getpid()}-{time.monotonic_ns()}"
        try:
            make_private_dir(self.home, parents=True)
            make_private_dir(self.runs)
            beside.mkdir(mode=0o700)
            write_json(beside / "spec.json", {**spec.to_dict(), "start": start})
            while True:
                id = f"{_next_stamp(self.ids())}-{spec.profile}"
                write_json(beside / "state.json", {"id": id, **state, "name": start.get("name") or id})
                if not (self.runs / id).exists():
                    try:
                        os.rename(beside, self.runs / id)
                        return RunDir(self.runs / id)
                    except FileExistsError:
                        pass
                    except OSError as error:
                        if error.errno != errno.ENOTEMPTY:  # another launch of the same second took the id
                            raise
        except OSError as error:
            shutil.rmtree(beside, ignore_errors=True)
            raise UserError(
                f"{self.runs}: cannot create a run: {error.strerror}; set MLA_TUI_HOME to a directory you can write to"
            ) from None


def _next_stamp(ids: list[str]) -> str:
    """Now, in UTC, or the second after the newest of ``ids``: they sort by time, also where the clock was set back."""
    now = int(time.time())
    for id in ids:
        with contextlib.suppress(ValueError):
            now = max(now, calendar.timegm(time.strptime(id[:STAMP_LENGTH], STAMP)) + 1)
            break
    return time.strftime(STAMP, time.gmtime(now))
