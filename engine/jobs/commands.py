"""What was asked of a trainer: an append-only file, read by rank 0 and acknowledged by id in the log."""

from __future__ import annotations

import errno
import json
import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.jobs.log import Tail, finite, scan

METHODS = ("set", "pause", "resume", "checkpoint", "stop")


@dataclass(frozen=True, slots=True)
class Command:
    id: str
    method: str
    params: dict[str, Any]
    by: str


def append(path: Path, method: str, params: dict[str, Any], by: str) -> str:
    """Ask; returns the command's id. Raises ``OSError``."""
    id = uuid.uuid4().hex[:12]
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
        if not self._tail.grown():
            return []
        return [
            Command(r["id"], r["method"], r["params"], str(r.get("by", "")))
            for _, r in self._tail.poll()
            if r["kind"] == "command"
            and r.get("method") in METHODS
            and isinstance(r.get("id"), str)
            and isinstance(r.get("params"), dict)
            and r["id"] not in self._done
        ]
