"""What a person reads of a log, from any place in it backwards or forwards.

It is read in pieces, so that however long it is no more of it is in memory than one of them. Steps and telemetry,
nearly all of a long log, are passed over at the speed of a search for bytes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.events.log import CHUNK, Record, parse

PIECE = 1 << 18
NUMBERS = ("step", "telemetry", "progress")  # kinds that only feed the charts
_EVENT = re.compile(rb'"kind": ?"(?!%b)' % b"|".join(f'{kind}"'.encode() for kind in NUMBERS))

Events = list[tuple[int, Record]]


def events_before(path: Path, before: int) -> Iterator[tuple[int, Events]]:
    """Piece after piece of the log from offset ``before``, where a line begins, back to its first line.

    Of each where it begins, and its events with their offsets, newest first.
    """
    with _opened(path) as fd:
        end, piece = before if fd is not None else 0, PIECE
        while fd is not None and end > 0:
            begin = max(0, end - piece)
            data = os.pread(fd, end - begin, begin)
            whole = data.find(b"\n") + 1 if begin else 0
            if begin and not 0 < whole < len(data):
                if piece < CHUNK:  # within one long line: look further back
                    piece *= 2
                    continue
                whole = len(data)  # too long to be a record
            piece = PIECE
            end = begin + whole if whole < len(data) else begin
            yield end, list(_events(data[whole:], begin + whole))[::-1]


def events_from(path: Path, start: int, end: int) -> Iterator[tuple[int, Events]]:
    """Piece after piece of the log from ``start``, where a line begins, on to ``end``.

    Of each where it ends, and its events with their offsets, oldest first.
    """
    with _opened(path) as fd:
        piece = PIECE
        while fd is not None and start < end and (data := os.pread(fd, min(piece, end - start), start)):
            whole = data.rfind(b"\n") + 1
            if not whole and start + len(data) < end and piece < CHUNK:
                piece *= 2
                continue
            piece, whole = PIECE, whole or len(data)
            begin, start = start, start + whole
            yield start, list(_events(data[:whole], begin))


@contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def _events(data: bytes, at: int) -> Iterator[tuple[int, Record]]:
    """The events among some whole lines that begin at offset ``at``."""
    behind = 0
    for match in _EVENT.finditer(data):
        if match.start() < behind:
            continue
        begin = data.rfind(b"\n", 0, match.start()) + 1
        behind = data.find(b"\n", begin) + 1 or len(data)
        record = parse(data[begin:behind])
        if record is not None and record["kind"] not in NUMBERS:
            yield at + begin, record
