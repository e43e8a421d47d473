"""``history.bin``: the series of a run up to an offset of its log. A cache: in doubt it is made again from the log.

    magic, offset, CRC of the log's first bytes, CRC of the log's last bytes before the offset, length of the index
    index: one line of JSON, [order, byte order, {series: [width, buckets]}, marks]
    the columns of each series, one behind the other
    CRC of all that

The two CRCs of the log tell whether it is the log that the series were made from.
"""

from __future__ import annotations

import dataclasses
import json
import os
import struct
import sys
import zlib
from array import array
from pathlib import Path
from typing import BinaryIO

from engine.events import history as series_module
from engine.events.history import COLUMNS, SERIES, History
from engine.events.step_dedup import StepDedup
from engine.host.files import write_atomic

MAGIC = b"MLAHIST2"
HEAD = struct.Struct("<8sQIII")
END = struct.Struct("<I")
PIECE = 1 << 16  # bytes that are checked at a time
WINDOW = 4096  # bytes of the log at either end that must be the same


class Unusable(Exception):
    """Why the file cannot be used."""


def save(path: Path, log: Path, history: History, at: int) -> None:
    """Replace the file. Raises ``OSError``."""
    order = dataclasses.asdict(history.dedup)
    shapes = {n: [s.width, len(s)] for n, s in history.series.items()}
    index = json.dumps([order, sys.byteorder, shapes, history.marks.to_list()]).encode()
    parts = [HEAD.pack(MAGIC, at, *_identity(log, at), len(index)), index]
    parts += [column.tobytes() for series in history.series.values() for column in series.columns()]
    body = b"".join(parts)
    write_atomic(path, body + END.pack(zlib.crc32(body)), fsync=False)


def load(path: Path, log: Path) -> tuple[History, int]:
    """The history and the log offset it covers. Raises ``Unusable`` and ``OSError``.

    Read piece by piece: the app looks at it often, and must not need its size twice.
    """
    with open(path, "rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise Unusable("is not one of this version's")
        if not _intact(file):
            raise Unusable("is damaged")
        file.seek(0)
        _, at, *identity, index_size = HEAD.unpack(file.read(HEAD.size))
        if tuple(identity) != _identity(log, at):
            raise Unusable("was made from another log")
        order, byteorder, shapes, marks = json.loads(file.read(index_size))
        if byteorder != sys.byteorder or list(shapes) != list(SERIES):
            raise Unusable("is not one of this version's")
        history = History(log)
        history.dedup = StepDedup(**order)
        history.marks.load(marks)
        for name, (width, count) in shapes.items():
            series = history.series[name]
            series.width = width
            if count > series_module.CAPACITY:
                raise Unusable("is not one of this version's")
            for column, kind in COLUMNS.items():
                values = array(kind)
                values.fromfile(file, count)
                setattr(series, column, values)
    return history, at


def _intact(file: BinaryIO) -> bool:
    """Whether the file ends in the CRC of all that is before."""
    left = os.fstat(file.fileno()).st_size - END.size
    if left < HEAD.size:
        return False
    file.seek(0)
    crc = 0
    while left > 0 and (piece := file.read(min(left, PIECE))):
        crc, left = zlib.crc32(piece, crc), left - len(piece)
    return file.read() == END.pack(crc)


def _identity(log: Path, at: int) -> tuple[int, int]:
    """CRCs of the first and of the last bytes before ``at``; of nothing where the log is not that long."""
    try:
        fd = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0, 0
    try:
        if os.fstat(fd).st_size < at:
            return 0, 0
        size = min(WINDOW, at)
        return zlib.crc32(os.pread(fd, size, 0)), zlib.crc32(os.pread(fd, size, at - size))
    finally:
        os.close(fd)
