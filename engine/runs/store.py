"""Creates, lists and finds run directories below the state directory."""

from __future__ import annotations

import calendar
import contextlib
import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from engine.events.labels import read_labels
from engine.events.run_dir import RunDir
from engine.events.status import Launch, RunStatus, Summary
from engine.host.disk_space import check_space
from engine.host.files import write_json
from engine.host.private_dirs import check_private_dir, make_private_dir, ownership_problem
from engine.host.process import Lock
from engine.host.struct_json import to_dict, write_struct
from profiles.errors import UserError
from profiles.names import check_name, slug
from profiles.paths import default_home, is_folder
from profiles.printable import one_line

if TYPE_CHECKING:
    from profiles.spec import RunSpec

STAMP, STAMP_LENGTH = "%Y%m%d-%H%M%S", 15  # the start of every id
_CREATION_TIMEOUT = 10.0  # seconds; a creation takes milliseconds
_NEW = ".new-"  # the start of the name that a directory has until it is complete
FORMAT = 2  # of a run directory, in its state.json; mla-tui 0.1 wrote no number and kept its runs in jobs/


class RunStore:
    """All runs of one user on one machine. Raises ``UserError`` where ``home`` holds runs of mla-tui 0.1."""

    def __init__(self, home: Path | None = None) -> None:
        self.home = (home or default_home()).absolute()
        self.runs = self.home / "runs"
        _check_layout(self.home)

    def ids(self) -> list[str]:
        """Newest first; ids sort by time. Raises ``UserError`` where the runs cannot, or must not, be read."""
        return [id for id, problem in self._entries() if not problem]

    def foreign_entries(self) -> list[str]:
        """A line for each entry of the runs folder that is ignored: a link, or another user's directory."""
        return [problem for _, problem in self._entries() if problem]

    def _entries(self) -> list[tuple[str, str | None]]:
        """The name of each directory in the runs folder, and why it must not be used (None where it may be)."""
        check_private_dir(self.home, self.runs)
        try:
            with os.scandir(self.runs) as entries:
                folders = [e for e in entries if not e.name.startswith(".") and is_folder(e)]
                return sorted(((e.name, _entry_problem(Path(e.path))) for e in folders), reverse=True)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"{self.runs}: cannot be read: {error.strerror}; check MLA_TUI_HOME") from None

    def summaries(self) -> list[Summary]:
        return [RunDir(self.runs / id).summary() for id in self.ids()]

    def find(self, text: str) -> RunDir:
        """Return the run whose id is ``text``, whose name is ``text`` (the newest), or the only one whose id has it.

        A name that is shown counts before one of a launch that was replaced by another.
        ``latest`` is the newest run. Raises ``UserError``.
        """
        run = RunDir(self.runs / self._match(text))
        _check_format(run)
        return run

    def _match(self, text: str) -> str:
        """The id that ``text`` means. Raises ``UserError``."""
        entries = self._entries()
        if problem := dict(entries).get(text):
            raise UserError(problem)
        ids = [id for id, problem in entries if not problem]
        if not ids:
            raise UserError(
                f"run {text!r}: there are no runs in {self.runs} (train leaves none); start one with: mla-tui launch"
            )
        if not text:
            raise UserError(f"run {text!r}: write a part of an id, a name or latest; the newest is {ids[0]}")
        if text == "latest":
            return ids[0]
        if text in ids:
            return text
        hidden = ""  # the newest run of that name which is shown by another one
        for id in ids:
            shown, launched = read_labels(self.runs / id).name, RunDir(self.runs / id).name
            if text == (shown or launched):
                return id
            hidden = hidden or (id if text == launched else "")
        if hidden:
            return hidden
        matches = [id for id in ids if text in id]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise UserError(f"run {text!r}: matches {', '.join(matches[:4])}; write more of the id")
        raise UserError(f"run {text!r}: no such run; the newest is {ids[0]} (mla-tui ls shows all)")

    def create(
        self, spec: RunSpec, launch: Launch, state: RunStatus, check: Callable[[], None] = lambda: None
    ) -> RunDir:
        """Create the directory of a new run, complete or not at all. Raises ``UserError``, also that of ``check``.

        Between ``check`` and the creation no other run is created.
        """
        import shutil  # here, because ls removes nothing

        temporary = self.runs / f"{_NEW}{os.getpid()}-{time.monotonic_ns()}"
        creation = Lock(self.home / ".create.lock")
        try:
            make_private_dir(self.home, parents=True)
            make_private_dir(self.runs)
            if not creation.acquire(_CREATION_TIMEOUT):
                raise UserError(f"{self.runs}: another launch takes long to create its run; try again in a moment")
            for left in self.runs.glob(f"{_NEW}*"):  # of launches that were killed: none is made without the lock
                shutil.rmtree(left, ignore_errors=True)
            temporary.mkdir(mode=0o700)
            check_space(temporary)
            launch = replace(launch, host=state.host, boot=state.boot)
            write_json(temporary / "spec.json", {**spec.to_dict(), "start": to_dict(launch)})
            check()
            while True:
                id = f"{_next_stamp(self.ids())}-{slug(spec.profile)}"  # printed in commands to copy
                state.format, state.id, state.name = FORMAT, id, launch.name or id
                write_struct(temporary / "state.json", state)
                if not (self.runs / id).exists():
                    try:
                        os.rename(temporary, self.runs / id)
                        return RunDir(self.runs / id)
                    except FileExistsError:
                        pass
                    except OSError as error:
                        if error.errno != errno.ENOTEMPTY:  # another launch of the same second took the id
                            raise
        except OSError as error:
            raise UserError(
                f"{self.runs}: cannot create a run: {error.strerror}; set MLA_TUI_HOME to a directory you can write to"
            ) from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            creation.release()


def _entry_problem(path: Path) -> str | None:
    """Why a directory in the runs folder must not be used, or None."""
    try:
        # Ids are words of a shell: messages name them in commands to copy.
        is_id = check_name("run", path.name) == slug(path.name)
    except UserError:
        is_id = False
    if not is_id:
        return one_line(f"{path}: is not the name of a run, it is ignored; rename or remove it")
    return ownership_problem(path)


def _check_layout(home: Path) -> None:
    """Raises ``UserError`` where ``home`` holds runs of mla-tui 0.1. One system call where it does not."""
    jobs = home / "jobs"
    try:
        with os.scandir(jobs) as entries:
            old = any(not e.name.startswith(".") and is_folder(e) for e in entries)
    except OSError:
        return
    if old:
        raise UserError(
            f"{home}: holds runs of mla-tui 0.1, which this version does not read; finish them with 0.1,"
            f" or move {jobs} away or set MLA_TUI_HOME to another directory"
        )


def _check_format(run: RunDir) -> None:
    """Raises ``UserError`` where a newer version of mla-tui created the run."""
    state = run.state()
    if state.format is not None and state.format > FORMAT:
        raise UserError(
            f"run {run.id}: was created by mla-tui {state.version} in format {state.format},"
            f" this version reads up to {FORMAT}; update mla-tui"
        )


def _next_stamp(ids: list[str]) -> str:
    """Now in UTC, or the second after the newest of ``ids``: ids sort by time even if the clock was set back."""
    now = int(time.time())
    for id in ids:
        with contextlib.suppress(ValueError):
            now = max(now, calendar.timegm(time.strptime(id[:STAMP_LENGTH], STAMP)) + 1)
            break
    return time.strftime(STAMP, time.gmtime(now))
