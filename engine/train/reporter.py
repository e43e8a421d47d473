"""Defines where the loop reports to and receives commands from: a run's log, a callback, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from engine.events.log import stamped
from engine.events.types import Command, Event, Progress


class Reporter(Protocol):
    """A run's log and commands (``run_reporter.py``), or the process that trains in the foreground."""

    def record(self, event: Event) -> None:
        """Write one record."""

    def progress(self, progress: Progress) -> None:
        """Report how far the current step is; may be dropped."""

    def commands(self) -> list[Command]:
        """Return the commands received since the last call."""

    def events_to_replay(self) -> list[Event]:
        """Return the events of earlier attempts that a restart replays, in order: applied edits, rewinds, starts,
        out-of-memory errors, and pauses and resumes that a user asked for."""

    def close(self) -> None:
        """End the report; no record follows."""


class SilentReporter:
    """Reports nothing: for all ranks but rank 0, which reports for them."""

    def record(self, event: Event) -> None:
        pass

    def progress(self, progress: Progress) -> None:
        pass

    def commands(self) -> list[Command]:
        return []

    def events_to_replay(self) -> list[Event]:
        return []

    def close(self) -> None:
        pass


class ShowReporter(SilentReporter):
    """Gives every event to a callback: for a run in the foreground, which takes no commands but signals."""

    def __init__(self, show: Callable[[Event], None]) -> None:
        self._show = show

    def record(self, event: Event) -> None:
        self._show(stamped(event, attempt=1))

    def progress(self, progress: Progress) -> None:
        self.record(progress)
