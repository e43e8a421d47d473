"""Defines where the loop reports to and receives commands from: a run's log, a callback, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from engine.events.commands import new_command_id
from engine.events.log import stamped
from engine.events.requests import StopRequest
from engine.events.types import Command, Event, Progress
from engine.host.files import write_stderr
from profiles.errors import OutputError


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
    """Gives every event to a callback: for a run in the foreground, which takes no commands but signals.

    A training is worth more than its lines. If they cannot be written, say on a full disk, it goes on and says so once;
    if their reader has ended, it saves and stops.
    """

    def __init__(self, show: Callable[[Event], None]) -> None:
        self._show = show
        self._failed = False
        self._stop: list[Command] = []

    def record(self, event: Event) -> None:
        try:
            self._show(stamped(event, attempt=1))
        except (OutputError, BrokenPipeError) as error:
            if self._failed:
                return
            self._failed = True
            if isinstance(error, BrokenPipeError):
                self._stop = [Command(id=new_command_id(), request=StopRequest(), by="a closed pipe")]
                write_stderr("standard output: its reader has ended; saving a checkpoint and stopping")
            else:
                write_stderr(f"{error}; the training goes on")

    def progress(self, progress: Progress) -> None:
        self.record(progress)

    def commands(self) -> list[Command]:
        stop, self._stop = self._stop, []
        return stop
