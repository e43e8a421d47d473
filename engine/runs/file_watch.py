"""Watches the files of a supervised run: makes deleted ones again, and notices that the log was truncated."""

from __future__ import annotations

import contextlib
import os

from engine.events.log import LogWriter
from engine.events.phases import STOPPED, has_ended
from engine.events.planned import Planned
from engine.events.restore import RunFiles
from engine.events.run_dir import RunDir
from engine.events.status import RunStatus
from engine.events.status_updates import update_status
from engine.events.types import Alert, Edit, State
from engine.host.process import Lock
from profiles.reader import open_regular
from profiles.spec import RunSpec

_COMPARED = 4096  # bytes


class FileWatch:
    """``needs_successor``: the run goes on, but not with this process, whose open log is no longer the run's.

    ``state`` is what the supervisor knows of the run; it outlives the log.
    """

    def __init__(self, run: RunDir, lock: Lock, log: LogWriter, spec: RunSpec, state: RunStatus) -> None:
        self.needs_successor = False
        self._run = run
        self._lock = lock
        self._log = log
        self._spec = spec
        self._state = state
        self._files = RunFiles(run)

    def check(self, trains: bool, offset: int) -> bool:
        """Return whether this supervisor can go on. ``offset``: how far it has read the log. Raises ``OSError``.

        ``trains``: whether a trainer is alive that watches the log itself. It then restores the log: if both did, each
        would take the other's copy for a foreign file. This one stays until the copy is there, because the trainer may
        be killed before. It never writes its own copy over that of the trainer, which has gone on there.
        """
        with contextlib.suppress(FileNotFoundError):  # with its directory
            self._lock.hold()
        if self._files.folder_is_gone() or not self._log.is_linked():
            if self._is_restored():
                self._hand_over()
                return False
            if trains:
                return True
            self._restore()
            return False
        self._files.restore_spec()
        if self._run.log_path.stat().st_size < offset:
            self._log_again()
            self._hand_over()
            return False
        return True

    def restore_spec(self) -> None:
        """Write spec.json again if it was deleted or changed, before a trainer reads it. Raises ``OSError``."""
        self._files.restore_spec()

    def _is_restored(self) -> bool:
        """Return whether the file with the name of the log begins like the open log: a copy of it."""
        try:
            with open_regular(self._run.log_path) as file:
                start = file.read(_COMPARED)
        except OSError:
            return False
        own = os.pread(self._log.fd, _COMPARED, 0)
        length = min(len(own), len(start))  # the copy may have gone on, and so may the open log
        return length > 0 and own[:length] == start[:length]

    def _restore(self) -> None:
        """Restore what was deleted while no trainer lives. Without its directory the run ends."""
        gone = self._files.folder_is_gone()
        self._files.restore(self._log)
        self._lock.hold()
        if gone and not has_ended(self._state.phase):
            reason = "the directory of this run was deleted; it is restored"
            update_status(self._state, self._log.write(State(phase=STOPPED, reason=reason)))
        else:
            self._hand_over()

    def _log_again(self) -> None:
        """Log what a truncated log has lost and a restart needs: the live edits. The old commands are put away.

        They were all read, and without their acknowledgements they would be carried out again.
        """
        if self._run.commands_path.exists():
            os.rename(self._run.commands_path, self._run.commands_path.with_suffix(".old"))
        tables = {part: table for part, table in self._spec.to_dict().items() if isinstance(table, dict)}
        values = {f"{part}.{name}": value for part, table in tables.items() for name, value in table.items()}
        text = "events.jsonl was truncated: its records are lost; the edits so far are logged again"
        self._log.write(Alert(what="files", text=text))
        now = Planned(self._state.step or 0, self._state.live or {})
        for edit in (now, *(self._state.later or ())):  # those that this attempt has yet to make again, too
            new = {key: value for key, value in edit.values.items() if values[key] != value}
            if changed := {key.partition(".")[2]: (values[key], value) for key, value in new.items()}:
                self._log.write(Edit(ok=True, changed=changed, step=edit.step, by="supervisor", why=text))
            values |= new

    def _hand_over(self) -> None:
        self.needs_successor = True
        self._state.supervisor = None  # or the next one would take this one for alive
