"""The trainer's side of a run: it writes the log, reads commands, says how far it is, and keeps a supervisor alive."""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections import deque
from typing import Any

from engine.events import wire
from engine.events.commands import Command, CommandReader
from engine.events.log import LogWriter, Record, finite, scan
from engine.events.run_dir import RunDir
from engine.events.start_supervisor import start_supervisor
from engine.host.files import write_stderr
from engine.host.process import is_locked

PROGRESS_EVERY = 0.5  # seconds between two live lines; a 20 s step must not look frozen
UNWRITTEN = 10_000  # records kept while the disk is full; beyond that the oldest are lost
FULL = (errno.ENOSPC, errno.EDQUOT, None)  # None: a part of the record was written (``LogWriter``)
ROOM_EVERY = 0.5  # seconds between two tries to write at the end
REVIVE_EVERY = 1.0  # seconds between two looks at the supervisor's lock


class RunReporter:
    """What ``engine.train`` talks to when it runs under a run."""

    def __init__(self, run: RunDir, attempt: int) -> None:
        self.run = run
        self.attempt = attempt
        self._log = LogWriter(run.log_path, attempt)
        self._unwritten: deque[tuple[str, dict[str, Any]]] = deque(maxlen=UNWRITTEN)
        self._commands = CommandReader(run.commands_path, run.log_path)
        self._live: socket.socket | None = None
        self._progress_due = self._revive_due = 0.0

    def record(self, kind: str, **fields: Any) -> None:
        """Append to the log. What a full disk refuses waits, in order, for the next record: the run goes on."""
        self._unwritten.append((kind, {"t": time.time(), **fields}))
        try:
            self._write_down()
        except OSError as error:
            if len(self._unwritten) == 1:
                write_stderr(f"events.jsonl: {error}; records wait for room")

    def _write_down(self) -> None:
        while self._unwritten:
            kind, fields = self._unwritten[0]
            self._log.write(kind, **fields)
            self._unwritten.popleft()

    def progress(self, **fields: Any) -> None:
        """Tell whoever watches, now and without a trace in the log; costs nothing when it is too early."""
        now = time.monotonic()
        if now < self._progress_due:
            return
        self._progress_due = now + PROGRESS_EVERY
        event = {"t": time.time(), "kind": "progress", "attempt": self.attempt, **fields}
        try:
            if self._live is None:
                self._live = wire.connect(self.run.socket_path)
                self._live.setblocking(False)
            line = wire.encode({"method": "event", "params": finite(event)})
            if self._live.send(line) < len(line):
                raise BlockingIOError  # the rest of a torn line would spoil the next one
        except OSError:  # nobody there, or too slow to listen: a live line is worth no wait
            if self._live is not None:
                self._live.close()
            self._live = None

    def commands(self) -> list[Command]:
        """What was asked since the last call; also the heartbeat that revives a dead supervisor."""
        now = time.monotonic()
        if now >= self._revive_due:
            self._revive_due = now + REVIVE_EVERY
            with contextlib.suppress(OSError):  # no memory for a process, a read-only disk: the next beat tries again
                if not is_locked(self.run.supervisor_lock):
                    start_supervisor(self.run)
        return self._commands.poll()

    def past(self) -> list[Record]:
        """What a restart must obey of all earlier attempts, in order (``edit_history.py``): applied edits, rewinds,
        states that somebody asked for, and want of memory."""
        return [r for _, r in scan(self.run.log_path, b'"edit"', b'"rewind"', b'"id"', b'"oom"') if _outlasts(r)]

    def close(self) -> None:
        """Ends when all is written: a run that came to its end on a full disk stays until there is room.

        Raises ``OSError`` where the disk refuses for another reason, which waiting does not mend.
        """
        while self._unwritten:
            try:
                self._write_down()
            except OSError as error:
                if error.errno not in FULL:
                    raise
                time.sleep(ROOM_EVERY)
        self._log.close()
        if self._live is not None:
            self._live.close()


def _outlasts(record: Record) -> bool:
    kind = record["kind"]
    return kind in ("rewind", "oom") or (kind == "edit" and record["ok"]) or (kind == "state" and "id" in record)
