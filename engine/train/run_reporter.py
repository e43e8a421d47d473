"""Connects a trainer to its run: writes the log, reads commands, sends live progress, restarts a dead supervisor."""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections import deque

from engine.events import wire
from engine.events.commands import CommandReader, new_command_id
from engine.events.log import LogWriter, needles, scan, stamped
from engine.events.requests import StopRequest
from engine.events.restore import RunFiles
from engine.events.run_dir import RunDir
from engine.events.start_supervisor import start_supervisor
from engine.events.types import Alert, Command, Edit, Event, Oom, Progress, Rewind, Start, State
from engine.host.files import write_stderr
from profiles.errors import UserError

PROGRESS_EVERY = 0.5  # seconds between two live lines; a 20 s step must not look frozen
MAX_UNWRITTEN = 10_000  # records kept while the disk is full; beyond that the oldest are lost
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, None)  # None: a part of the record was written (``LogWriter``)
DELETED = "the deletion of the run's directory"  # who asks for the stop
RETRY_EVERY = 0.5  # seconds between two tries to write at the end
BROKEN_AFTER = 10.0  # seconds for which a disk that refuses, and is not full, is tried again at the end
REVIVE_EVERY = 1.0  # seconds between two checks of the supervisor's lock


class RunReporter:
    """The reporter of rank 0 of a supervised run."""

    def __init__(self, run: RunDir, attempt: int) -> None:
        self.run = run
        self.attempt = attempt
        self._log = LogWriter(run.log_path, attempt)
        self._files = RunFiles(run)
        self._restore_failed = False
        self._unwritten: deque[Event] = deque(maxlen=MAX_UNWRITTEN)
        self._commands = CommandReader(run.commands_path, run.log_path)
        self._live: socket.socket | None = None
        self._progress_due = self._revive_due = 0.0

    def record(self, event: Event) -> None:
        """Append to the log. On a full disk records wait, in order, for the next one, and the run goes on."""
        self._unwritten.append(stamped(event, self.attempt))
        try:
            self._flush()
        except OSError as error:
            if len(self._unwritten) == 1:
                write_stderr(f"events.jsonl: {error}; records wait for free space")

    def _flush(self) -> None:
        while self._unwritten:
            self._log.write(self._unwritten[0])
            self._unwritten.popleft()

    def progress(self, progress: Progress) -> None:
        """Send the progress of the current step to the clients, unlogged, at most every ``PROGRESS_EVERY`` seconds."""
        now = time.monotonic()
        if now < self._progress_due:
            return
        self._progress_due = now + PROGRESS_EVERY
        try:
            if self._live is None:
                self._live = wire.connect(self.run.socket_path)
                self._live.setblocking(False)
            line = wire.encode_event(stamped(progress, self.attempt))
            if self._live.send(line) < len(line):
                raise BlockingIOError  # a torn line would spoil the next one
        except OSError:  # no supervisor, or one too slow: a live line is not worth a wait
            if self._live is not None:
                self._live.close()
            self._live = None

    def commands(self) -> list[Command]:
        """Return the commands received since the last call.

        Once a second also write the records that wait, restore the files of the run that were deleted, and restart a
        dead supervisor. If the whole directory was deleted, its user means the run to end, or its disk fails: it stops.
        """
        now = time.monotonic()
        stop: list[Command] = []
        if now >= self._revive_due:
            self._revive_due = now + REVIVE_EVERY
            gone = self._files.folder_is_gone()
            if gone or not self._log.is_linked():
                stop = self._restore(gone)
            with contextlib.suppress(OSError):  # a paused run writes no other record behind which they could go
                self._flush()
            with contextlib.suppress(OSError):  # no memory for a process, a read-only disk: tried again a second later
                self._files.restore_spec()
                if not self.run.has_supervisor():
                    start_supervisor(self.run)
        return [*self._commands.poll(), *stop]

    def _restore(self, gone: bool) -> list[Command]:
        """Restore the log of the run; return a stop where its whole directory is ``gone``."""
        what = "the directory of this run" if gone else "the log of this run"
        text, failed = f"{what} was deleted or replaced while it trains; it is restored", False
        try:
            self._files.restore(self._log)
        except (OSError, UserError) as error:
            text, failed = f"{what} was deleted or replaced while it trains and cannot be restored: {error}", True
        if not (failed and self._restore_failed):  # it is tried every second, and said once
            write_stderr(text)
            self.record(Alert(what="files", text=text))
        self._restore_failed = failed
        return [Command(id=new_command_id(), request=StopRequest(), by=DELETED)] if gone else []

    def events_to_replay(self) -> list[Event]:
        """Return what a restart replays of all earlier attempts, in order (``edit_history.py``)."""
        found = scan(self.run.log_path, *needles(Edit, Rewind, Oom, Start), b'"id"')
        return [event for _, event in found if _is_replayed(event)]

    def close(self) -> None:
        """Write what is left and close the log; on a full disk wait until there is free space.

        Raises ``OSError`` where the disk refuses for another reason, and still does after ``BROKEN_AFTER`` seconds.
        """
        deadline = time.monotonic() + BROKEN_AFTER
        while self._unwritten:
            try:
                self._flush()
            except OSError as error:
                if error.errno not in DISK_FULL and time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_EVERY)
        self._log.close()
        if self._live is not None:
            self._live.close()


def _is_replayed(event: Event) -> bool:
    match event:
        case Rewind() | Oom() | Start():
            return True
        case Edit():
            return event.ok
        case State():
            return event.id is not None
    return False
