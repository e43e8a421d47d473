"""Reads and writes the log of a run: JSON records, one per line, identified by their byte offset.

Several processes append. Each record is one ``write(2)`` on an ``O_APPEND`` descriptor, so records never mix. Every
reader skips a line that does not parse, because its writer died or the disk was full.
"""

from __future__ import annotations

import errno
import os
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import msgspec

from engine.events.decode import decode, is_of_newer_version
from engine.events.types import UNTIMED, Event
from engine.host.process import is_linked
from engine.host.struct_json import encode
from profiles.reader import check_regular, open_regular_fd

MAX_LINE = 1 << 20  # bytes; a longer line is no record
READ_BYTES = 1 << 17  # per read; a longer line takes another read
MAX_DAMAGED = 100


class LogWriter:
    """Appends records. It does not sync: the supervisor calls ``fdatasync`` once a second."""

    def __init__(self, path: Path, attempt: int) -> None:
        self.path = path
        self.attempt = attempt
        self.fd = _open_for_append(path)

    def write(self, event: Event) -> Event:
        """Append one record and return it, with its time and attempt. Raise ``OSError`` if it is not written whole."""
        event = stamped(event, self.attempt)
        line = encode(event) + b"\n"
        # End the torn line of another writer first; otherwise this record would become part of it.
        line = line if self._ends_with_newline() else b"\n" + line
        written = os.write(self.fd, line)
        if written < len(line):
            raise OSError(f"{self.path}: only {written} of {len(line)} bytes were written")
        return event

    def _ends_with_newline(self) -> bool:
        size = os.fstat(self.fd).st_size
        return size == 0 or os.pread(self.fd, 1, size - 1) == b"\n"

    def is_linked(self) -> bool:
        """Return whether the file is still there under its name; costs two ``stat``."""
        return is_linked(self.path, self.fd)

    def move_to(self, path: Path) -> None:
        """Go on in the log at ``path``, a copy of this one. Raise ``OSError``."""
        fd = _open_for_append(path)
        os.close(self.fd)
        self.path, self.fd = path, fd

    def close(self) -> None:
        os.fdatasync(self.fd) if hasattr(os, "fdatasync") else os.fsync(self.fd)
        os.close(self.fd)


def stamped(event: Event, attempt: int) -> Event:
    """Return ``event`` with its attempt, and with the time unless it has one."""
    t = round(time.time() if event.t == UNTIMED else event.t, 6)
    return msgspec.structs.replace(event, t=t, attempt=attempt)


def _open_for_append(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    check_regular(path, os.fstat(fd).st_mode)
    return fd


class Tail:
    """Follows a growing file of records from a byte offset. Its descriptor is closed with it at the latest."""

    def __init__(self, path: Path, start: int = 0) -> None:
        self.path = path
        self.offset = start
        self.damaged: list[int] = []  # offsets of the first lines that are no records
        self._fd: int | None = None

    def poll(self) -> list[tuple[int, Event]]:
        """Return the complete records since the last call with their offsets, at most about ``READ_BYTES`` of them.

        ``self.offset`` is then the offset of the next record.
        """
        if self._fd is None:
            if (fd := open_log(self.path)) is None:
                return []
            self._fd = fd
            self._close_fd = weakref.finalize(self, os.close, self._fd)
        events: list[tuple[int, Event]] = []
        while not events:  # skip torn lines: callers take an empty list for the end of the file
            data = os.pread(self._fd, READ_BYTES, self.offset)
            end = data.rfind(b"\n") + 1
            if not end and len(data) == READ_BYTES:
                data = os.pread(self._fd, MAX_LINE, self.offset)
                end = data.rfind(b"\n") + 1
            if not end and len(data) == MAX_LINE:
                end = len(data)  # no newline in MAX_LINE bytes: skip them
            if not end:
                break
            offset = self.offset
            for line in data[:end].splitlines(keepends=True):
                event = decode(line)
                if event is not None:
                    events.append((offset, event))
                elif len(line) > 1 and len(self.damaged) < MAX_DAMAGED and not is_of_newer_version(line):
                    self.damaged.append(offset)  # an empty line is no damage
                offset += len(line)
            self.offset += end
        return events

    def is_replaced(self) -> bool:
        """Return whether the file that is read was deleted, or another one has its name; costs two ``stat``."""
        return self._fd is not None and not is_linked(self.path, self._fd)

    def has_grown(self) -> bool:
        """Return whether the file has data that ``poll`` has not read; costs one ``stat``."""
        return self.size() > self.offset

    def size(self) -> int:
        """Return the size of the file in bytes; 0 if it does not exist."""
        try:
            return os.fstat(self._fd).st_size if self._fd is not None else os.stat(self.path).st_size
        except FileNotFoundError:
            return 0

    def sync(self) -> None:
        """Sync the file to disk. Blocks."""
        if self._fd is not None:
            os.fdatasync(self._fd) if hasattr(os, "fdatasync") else os.fsync(self._fd)

    def close(self) -> None:
        if self._fd is not None:
            self._close_fd()
            self._fd = None


def open_log(path: Path) -> int | None:
    """Return a descriptor to read a log; None where there is none, also if another kind of file has its name."""
    try:
        return open_regular_fd(path)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EINVAL):
            raise
        return None


def read_all(path: Path, start: int = 0) -> Iterator[tuple[int, Event]]:
    """Yield every record written so far with its offset."""
    tail = Tail(path, start)
    try:
        while tail.has_grown():
            before = tail.offset
            yield from tail.poll()
            if tail.offset == before:  # only a torn last line is left
                return
    finally:
        tail.close()


def needles(*kinds: type[Event]) -> list[bytes]:
    """Return what ``scan`` searches for to find the records of some kinds."""
    return [b'"kind":"%b"' % str(kind.__struct_config__.tag).encode() for kind in kinds]


def scan(path: Path, *needles: bytes) -> Iterator[tuple[int, Event]]:
    """Yield every record whose line contains one of ``needles``, with its offset, without parsing the other lines.

    For rare kinds in a long log: searching for bytes takes a twentieth of the time of parsing.
    """
    if (fd := open_log(path)) is None:
        return
    offset = 0
    try:
        while data := os.pread(fd, MAX_LINE, offset):
            end = data.rfind(b"\n") + 1 or (len(data) if len(data) == MAX_LINE else 0)
            if not end:
                return
            for begin in sorted({data.rfind(b"\n", 0, i) + 1 for n in needles for i in _find_all(data, n, end)}):
                event = decode(data[begin : data.find(b"\n", begin) + 1 or end])
                if event is not None:
                    yield offset + begin, event
            offset += end
    finally:
        os.close(fd)


def _find_all(data: bytes, needle: bytes, end: int) -> Iterator[int]:
    i = data.find(needle, 0, end)
    while i >= 0:
        yield i
        i = data.find(needle, i + len(needle), end)
