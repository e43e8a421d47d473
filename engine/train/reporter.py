"""Defines where the loop reports to and receives commands from: a run's log, a callback, or nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from engine.events.commands import Command
from engine.events.log import Record


class Reporter(Protocol):
    """A run's log and commands (``run_reporter.py``), or the process that trains in the foreground."""

    def record(self, kind: str, **fields: Any) -> None:
        """Write one record."""

    def progress(self, **fields: Any) -> None:
        """Report how far the current step is; may be dropped."""

    def commands(self) -> list[Command]:
        """Return the commands received since the last call."""

    def records_to_replay(self) -> list[Record]:
        """Return the records of earlier attempts that a restart replays, in order: applied edits, rewinds, starts,
        out-of-memory errors, and pauses and resumes that a user asked for."""

    def close(self) -> None:
        """End the report; no record follows."""


class SilentReporter:
    """Reports nothing: for all ranks but rank 0, which reports for them."""

    def record(self, kind: str, **fields: Any) -> None:
        pass

    def progress(self, **fields: Any) -> None:
        pass

    def commands(self) -> list[Command]:
        return []

    def records_to_replay(self) -> list[Record]:
        return []

    def close(self) -> None:
        pass


class ShowReporter(SilentReporter):
    """Gives every record to a callback: for a run in the foreground, which takes no commands but signals."""

    def __init__(self, show: Callable[[Record], None]) -> None:
        self._show = show

    def record(self, kind: str, **fields: Any) -> None:
        self._show({"t": time.time(), "kind": kind, "attempt": 1, **fields})

    def progress(self, **fields: Any) -> None:
        self.record("progress", **fields)
