"""Writes ``state.json``, the summary of a supervised run: at once what a user looks for next, else once a second."""

from __future__ import annotations

import time
from typing import Any

from engine.events.log import LogWriter
from engine.events.run_dir import RunDir
from engine.host.files import write_json, write_stderr

INTERVAL = 1.0  # seconds between writes


class StateFile:
    """``summary`` is what the supervisor knows of the run, ``log`` the open log of the run."""

    def __init__(self, run: RunDir, summary: dict[str, Any], log: LogWriter) -> None:
        self._run, self._summary, self._log = run, summary, log
        self._due = 0.0
        self._urgent = self._urgent_values()

    def save(self) -> None:
        self._due = time.monotonic() + INTERVAL
        self._urgent = self._urgent_values()
        if not self._log.is_linked():
            return  # the directory was deleted; by now another supervisor may write there
        try:
            write_json(self._run.state_path, self._summary)
        except OSError as error:  # a full disk must not end a run: the state can be rebuilt from the log
            write_stderr(f"state.json: {error}")

    def save_if_due(self) -> None:
        if time.monotonic() >= self._due:
            self.save()

    def save_if_urgent(self) -> None:
        if self._urgent_values() != self._urgent:
            self.save()

    def _urgent_values(self) -> tuple[Any, ...]:
        """What state.json must show at once: a user who stops, edits or saves a run looks there next."""
        return tuple(self._summary.get(key) for key in ("phase", "checkpoint", "live"))
