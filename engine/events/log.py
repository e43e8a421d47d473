"""The one log of a run: JSON records, one a line, identified by their byte offset.

Several processes append; each record is one ``write(2)`` on an ``O_APPEND`` descriptor, so records never mix. A line
that does not parse (a writer died within it, the disk was full) is skipped by every reader.
"""

from __future__ import annotations

import json
import math
import os
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.events.schema import fits

Record = dict[str, Any]
CHUNK = 1 << 20  # bytes a line may have
READ = 1 << 17  # bytes read at a time, while lines are shorter
DAMAGED_KEPT = 100


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
    """Reads a growing file of records from a byte offset on. Its descriptor goes with it, also where nobody closes."""

    def __init__(self, path: Path, start: int = 0) -> None:
        self.path = path
        self.offset = start
        self.damaged: list[int] = []  # where the first few lines that hold no record begin
        self._fd: int | None = None

    def poll(self) -> list[tuple[int, Record]]:
        """The complete records that have come since the last call, at most about ``READ`` bytes of them.

        Each stands with its own offset; ``self.offset`` is where the next one begins.
        """
        if self._fd is None:
            try:
                self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return []
            self._let_go = weakref.finalize(self, os.close, self._fd)
        records: list[tuple[int, Record]] = []
        while not records:  # torn lines only: callers take an empty answer for the end, so look behind them
            data = os.pread(self._fd, READ, self.offset)
            end = data.rfind(b"\n") + 1
            if not end and len(data) == READ:
                data = os.pread(self._fd, CHUNK, self.offset)
                end = data.rfind(b"\n") + 1
            if not end and len(data) == CHUNK:
                end = len(data)  # a megabyte without a newline is no record
            if not end:
                break
            at = self.offset
            for line in data[:end].splitlines(keepends=True):
                record = parse(line)
                if record is not None:
                    records.append((at, record))
                elif len(line) > 1 and len(self.damaged) < DAMAGED_KEPT:  # writers may put an empty line in front
                    self.damaged.append(at)
                at += len(line)
            self.offset += end
        return records

    def has_grown(self) -> bool:
        """Whether there may be something to ``poll``: one ``stat``."""
        return self.size() > self.offset

    def size(self) -> int:
        """Bytes of the file now; 0 where there is none."""
        try:
            return os.fstat(self._fd).st_size if self._fd is not None else os.stat(self.path).st_size
        except FileNotFoundError:
            return 0

    def sync(self) -> None:
        """Ask for what was written so far to reach the disk. Blocks."""
        if self._fd is not None:
            os.fdatasync(self._fd) if hasattr(os, "fdatasync") else os.fsync(self._fd)

    def close(self) -> None:
        if self._fd is not None:
            self._let_go()
            self._fd = None


def read_all(path: Path, start: int = 0) -> Iterator[tuple[int, Record]]:
    """Every record that is there now, with its offset."""
    tail = Tail(path, start)
    try:
        while tail.has_grown():
            before = tail.offset
            yield from tail.poll()
            if tail.offset == before:  # only a torn end is left
                return
    finally:
        tail.close()


def scan(path: Path, *needles: bytes) -> Iterator[tuple[int, Record]]:
    """Every record whose line holds one of ``needles``, with its offset, in order; the other lines are not parsed.

    For the rare kinds in a long log: it is read at the speed of a search for bytes, a twentieth of the time of parsing.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    at = 0
    try:
        while data := os.pread(fd, CHUNK, at):
            end = data.rfind(b"\n") + 1 or (len(data) if len(data) == CHUNK else 0)
            if not end:
                return
            for begin in sorted({data.rfind(b"\n", 0, i) + 1 for n in needles for i in _found(data, n, end)}):
                record = parse(data[begin : data.find(b"\n", begin) + 1 or end])
                if record is not None:
                    yield at + begin, record
            at += end
    finally:
        os.close(fd)


def _found(data: bytes, needle: bytes, end: int) -> Iterator[int]:
    i = data.find(needle, 0, end)
    while i >= 0:
        yield i
        i = data.find(needle, i + len(needle), end)


_DECODER = json.JSONDecoder(parse_constant=lambda _: None)  # a foreign writer's NaN must not reach the wire


def parse(line: bytes) -> Record | None:
    """A line's record, or None where the line is torn, no record, or one that no reader could take (``shapes``)."""
    try:
        text = line.decode()
        record, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return record if fits(record) and not text[end:].strip() else None


def finite(value: Any) -> Any:
    """JSON has no NaN: what is not finite becomes null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return value
