"""Sends commands to a trainer through an append-only file; rank 0 reads it and acknowledges each id in the log."""

from __future__ import annotations

import errno
import os
import time
import uuid
from pathlib import Path

from engine.events.log import Tail, scan
from engine.events.requests import TrainerRequest
from engine.events.types import Command
from engine.host.struct_json import encode

CLIENTS = ("app", "command line", "client", "socket")  # who may send a command


def requested(by: str) -> str:
    """Return who sent a command, for the reason of the phase it leads to: a client of ours, a signal, or another."""
    return f"requested {'from the' if by in CLIENTS else 'by'} {by}"


def new_command_id() -> str:
    return uuid.uuid4().hex[:12]


def append(path: Path, request: TrainerRequest, by: str, id: str | None = None) -> str:
    """Append a command and return its id. Raise ``OSError``.

    A command appended twice with the same ``id`` is executed once.
    """
    id = id or new_command_id()
    command = Command(time.time(), id=id, request=request, by=by)
    # O_NONBLOCK: a FIFO in its place is an error, not a wait for its reader.
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    try:
        # The leading newline ends a torn line that a killed writer may have left; empty lines are skipped.
        line = b"\n" + encode(command) + b"\n"
        if os.write(fd, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        try:
            os.fsync(fd)
        except OSError as error:  # a trainer that lives has read it by now
            raise OSError(error.errno, f"{error.strerror}; the request may take effect nevertheless") from None
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(fd)
    return id


class CommandReader:
    """Reads the commands that the log does not acknowledge yet, in the order they were appended."""

    def __init__(self, path: Path, log: Path) -> None:
        self._tail = Tail(path)
        self._seen = {event.id for _, event in scan(log, b'"id"') if event.id is not None}

    def poll(self) -> list[Command]:
        """Return new commands since the last call; costs four ``stat`` if there are none.

        A file that was deleted is read to its end, and then the new one that has its name. A truncated one is read from
        its beginning.
        """
        replaced = self._tail.is_replaced()
        new = self._read()
        if replaced:
            self._tail.close()
        if replaced or self._tail.size() < self._tail.offset:
            self._tail.offset = 0
            new += self._read()
        return new

    def _read(self) -> list[Command]:
        new = []
        while self._tail.has_grown() and (events := self._tail.poll()):
            for _, event in events:
                if isinstance(event, Command) and event.id not in self._seen:
                    self._seen.add(event.id)
                    new.append(event)
        return new
