"""Writes ``state.json``, the state of a supervised run: at once what a user looks for next, else once a second."""

from __future__ import annotations

import time
from typing import Any

from engine.events.log import LogWriter
from engine.events.run_dir import RunDir
from engine.events.status import RunStatus
from engine.host.files import write_stderr
from engine.host.struct_json import write_struct

INTERVAL = 1.0  # seconds between writes


class StateFile:
    """``state`` is what the supervisor knows of the run, ``log`` the open log of the run."""

    def __init__(self, run: RunDir, state: RunStatus, log: LogWriter) -> None:
        self._run, self._state, self._log = run, state, log
        self.failed = False  # whether the last write did: the file may say what is no longer so
        self._due = 0.0
        self._urgent = self._urgent_values()

    def save(self) -> None:
        self._due = time.monotonic() + INTERVAL
        self._urgent = self._urgent_values()
        if not self._log.is_linked():
            return  # the directory was deleted; by now another supervisor may write there
        try:
            write_struct(self._run.state_path, self._state)
            self.failed = False
        except OSError as error:  # a full disk must not end a run: the state can be rebuilt from the log
            self.failed = True
            write_stderr(f"state.json: {error}")

    def save_if_due(self) -> None:
        if time.monotonic() >= self._due:
            self.save()

    def save_if_urgent(self) -> None:
        if self._urgent_values() != self._urgent:
            self.save()

    def _urgent_values(self) -> tuple[Any, ...]:
        """What state.json must show at once: a user who stops, edits or saves a run looks there next."""
        return self._state.phase, self._state.checkpoint, self._state.live
