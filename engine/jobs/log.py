"""The one log of a job: JSON records, one a line, identified by their byte offset.

Several processes append; each record is one ``write(2)`` on an ``O_APPEND`` descriptor, so records never mix. A line
that does not parse (a writer died within it, the disk was full) is skipped by every reader.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Record = dict[str, Any]
CHUNK = 1 << 20


class LogWriter:
    """Appends records. Durability against power loss is the reader's ``fdatasync`` once a second, not the writer's."""

    def __init__(self, path: Path, attempt: int) -> None:
        self.path = path
        self.attempt = attempt
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, kind: str, **fields: Any) -> Record:
        """Append one record and return it. Raises ``OSError`` where the disk refuses it."""
        record = {"t": round(time.time(), 6), "kind": kind, "attempt": self.attempt, **finite(fields)}
        line = json.dumps(record, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        # A torn line before us ends here; without this newline it would swallow our record too.
        line = line if self._ends_clean() else b"\n" + line
        written = os.write(self._fd, line)
        if written < len(line):
            raise OSError(f"{self.path}: only {written} of {len(line)} bytes were written")
        return record

    def _ends_clean(self) -> bool:
        size = os.fstat(self._fd).st_size
        return size == 0 or os.pread(self._fd, 1, size - 1) == b"\n"

    def close(self) -> None:
        os.fdatasync(self._fd) if hasattr(os, "fdatasync") else os.fsync(self._fd)
        os.close(self._fd)


class Tail:
    """Reads a growing file of records from a byte offset on."""

    def __init__(self, path: Path, start: int = 0) -> None:
        self.path = path
        self.at = start
        self._fd: int | None = None

    def poll(self) -> list[tuple[int, Record]]:
        """The complete records that have come since the last call, at most about ``CHUNK`` bytes of them.

        Each stands with its own offset; ``self.at`` is where the next one begins.
        """
        if self._fd is None:
            try:
                self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return []
        records: list[tuple[int, Record]] = []
        while not records:  # torn lines only: callers take an empty answer for the end, so look behind them
            data = os.pread(self._fd, CHUNK, self.at)
            end = data.rfind(b"\n") + 1
            if not end and len(data) == CHUNK:
                end = len(data)  # a megabyte without a newline is no record
            if not end:
                break
            at = self.at
            for line in data[:end].splitlines(keepends=True):
                record = parse(line)
                if record is not None:
                    records.append((at, record))
                at += len(line)
            self.at += end
        return records

    def grown(self) -> bool:
        """Whether there may be something to ``poll``: one ``stat``."""
        try:
            size = os.fstat(self._fd).st_size if self._fd is not None else os.stat(self.path).st_size
        except FileNotFoundError:
            return False
        return size > self.at

    def sync(self) -> None:
        """Ask for what was written so far to reach the disk. Blocks."""
        if self._fd is not None:
            os.fdatasync(self._fd) if hasattr(os, "fdatasync") else os.fsync(self._fd)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def read_all(path: Path, start: int = 0) -> Iterator[tuple[int, Record]]:
    """Every record that is there now, with its offset."""
    tail = Tail(path, start)
    try:
        while tail.grown():
            before = tail.at
            yield from tail.poll()
            if tail.at == before:  # only a torn end is left
                return
    finally:
        tail.close()


_DECODER = json.JSONDecoder(parse_constant=lambda _: None)  # a foreign writer's NaN must not reach the wire


def parse(line: bytes) -> Record | None:
    """A line's record, or None where the line is torn or no record."""
    try:
        record = _DECODER.decode(line.decode())
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and "kind" in record else None


def finite(value: Any) -> Any:
    """JSON has no NaN: what is not finite becomes null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return value
