"""Reads the events of a log in blocks, backwards or forwards from any offset.

Only one block is in memory at a time. Step and telemetry records, most of a long log, are skipped by a search for bytes
without parsing them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.events.decode import decode
from engine.events.log import MAX_LINE, open_log
from engine.events.types import Event, Progress, RankStats, Step, Telemetry

BLOCK = 1 << 18
METRICS = (Step, Telemetry, RankStats, Progress)  # records that only feed charts
_OTHERS = b"|".join(b'%b"' % str(one.__struct_config__.tag).encode() for one in METRICS)
_EVENT = re.compile(rb'"kind": ?"(?!%b)' % _OTHERS)

Events = list[tuple[int, Event]]


def events_before(path: Path, before: int) -> Iterator[tuple[int, Events]]:
    """Read the log backwards from offset ``before``, the beginning of a line, to its first line.

    Yield for each block its offset, and its events with their offsets, newest first.
    """
    with _opened(path) as fd:
        end, block = before if fd is not None else 0, BLOCK
        while fd is not None and end > 0:
            begin = max(0, end - block)
            data = os.pread(fd, end - begin, begin)
            first_line = data.find(b"\n") + 1 if begin else 0
            if begin and not 0 < first_line < len(data):
                if block < MAX_LINE:  # one line fills the block: read a larger one
                    block *= 2
                    continue
                first_line = len(data)  # too long to be a record
            block = BLOCK
            end = begin + first_line if first_line < len(data) else begin
            yield end, list(_events(data[first_line:], begin + first_line))[::-1]


def events_from(path: Path, start: int, end: int) -> Iterator[tuple[int, Events]]:
    """Read the log forwards from offset ``start``, the beginning of a line, to ``end``.

    Yield for each block the offset of its end, and its events with their offsets, oldest first.
    """
    with _opened(path) as fd:
        block = BLOCK
        while fd is not None and start < end and (data := os.pread(fd, min(block, end - start), start)):
            whole_lines = data.rfind(b"\n") + 1
            if not whole_lines and start + len(data) < end and block < MAX_LINE:
                block *= 2
                continue
            block, whole_lines = BLOCK, whole_lines or len(data)
            begin, start = start, start + whole_lines
            yield start, list(_events(data[:whole_lines], begin))


def newest_of(path: Path, before: int, kind: type[Event], most: int) -> tuple[int, Event] | None:
    """Return the newest record of ``kind`` with its offset, if one lies within ``most`` bytes before ``before``."""
    with _opened(path) as fd:
        begin = max(0, before - most)
        data = os.pread(fd, before - begin, begin) if fd is not None else b""
    end, wanted = len(data), b'"%b"' % str(kind.__struct_config__.tag).encode()
    while (found := data.rfind(wanted, 0, end)) >= 0:
        first, last = data.rfind(b"\n", 0, found) + 1, data.find(b"\n", found) + 1 or len(data)
        if isinstance(event := decode(data[first:last]), kind):
            return begin + first, event
        end = first
    return None


@contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    fd = open_log(path)
    try:
        yield fd
    finally:
        if fd is not None:
            os.close(fd)


def _events(data: bytes, offset: int) -> Iterator[tuple[int, Event]]:
    """Yield the events in ``data``, whole lines that begin at ``offset`` of the log."""
    end = 0
    for match in _EVENT.finditer(data):
        if match.start() < end:
            continue
        begin = data.rfind(b"\n", 0, match.start()) + 1
        end = data.find(b"\n", begin) + 1 or len(data)
        event = decode(data[begin:end])
        if event is not None and not isinstance(event, METRICS):
            yield offset + begin, event
