"""What was asked of a trainer: an append-only file, read by rank 0 and acknowledged by id in the log."""

from __future__ import annotations

import errno
import json
import os
import re
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.events.log import Record, Tail, finite, scan

METHODS = ("set", "pause", "resume", "checkpoint", "stop")


@dataclass(frozen=True, slots=True)
class Command:
    id: str
    method: str
    params: dict[str, Any]
    by: str


def new_id() -> str:
    return uuid.uuid4().hex[:12]


def is_id(id: Any) -> bool:
    return isinstance(id, str) and re.fullmatch("[0-9a-f]{12}", id) is not None


def append(path: Path, method: str, params: dict[str, Any], by: str, id: str | None = None) -> str:
    """Ask; returns the command's id. Raises ``OSError``.

    A command that is asked twice with the same ``id`` is carried out once.
    """
    id = id or new_id()
    record = {"t": time.time(), "kind": "command", "id": id, "method": method, "params": params, "by": by}
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        # A leading newline ends whatever a writer that died left behind; empty lines are skipped.
        line = b"\n" + json.dumps(finite(record)).encode() + b"\n"
        if os.write(fd, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(fd)
    finally:
        os.close(fd)
    return id


class CommandReader:
    """The commands nobody has acknowledged yet, in the order they were given."""

    def __init__(self, path: Path, log: Path) -> None:
        self._tail = Tail(path)
        self._done = {record["id"] for _, record in scan(log, b'"id"') if "id" in record}

    def poll(self) -> list[Command]:
        """New commands since the last call; one ``stat`` where there are none."""
        if not self._tail.has_grown():
            return []
        found = []
        for _, record in self._tail.poll():
            command = _command(record)
            if command is not None and command.id not in self._done:
                self._done.add(command.id)
                found.append(command)
        return found


def _command(record: Record) -> Command | None:
    """The command that a line of the file gives, or None where it is damaged."""
    id, method, params = record.get("id"), record.get("method"), record.get("params")
    if record["kind"] != "command" or method not in METHODS or not isinstance(id, str) or not isinstance(params, dict):
        return None
    return Command(id, str(method), params, str(record.get("by", "")))
