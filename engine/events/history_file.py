"""Saves and loads ``history.bin``, a cache of the series of a run up to an offset of its log.

If it is invalid, the series are built from the log. Layout:

    magic, offset, CRC of the log's first bytes, CRC of the log's last bytes before the offset, length of the index
    index: one line of JSON, [dedup state, byte order, {series: [width, buckets]}, marks]
    the columns of each series, one after another
    CRC of everything before

The two CRCs of the log detect a cache that belongs to another log.
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
from engine.events.log import open_log
from engine.events.step_dedup import StepDedup
from engine.host.files import write_atomic
from profiles.reader import open_regular

MAGIC = b"MLAHIST3"
HEADER = struct.Struct("<8sQIII")
CHECKSUM = struct.Struct("<I")
READ_BYTES = 1 << 16
FINGERPRINT_BYTES = 4096  # of the log, at either end


class InvalidCache(Exception):
    """The cache cannot be used; the message says why."""


def save(path: Path, log: Path, history: History, offset: int) -> None:
    """Replace the file. Raise ``OSError``."""
    dedup = dataclasses.asdict(history.dedup)
    sizes = {name: [series.width, len(series)] for name, series in history.series.items()}
    index = json.dumps([dedup, sys.byteorder, sizes, history.marks.to_list()]).encode()
    parts = [HEADER.pack(MAGIC, offset, *_fingerprint(log, offset), len(index)), index]
    parts += [column.tobytes() for series in history.series.values() for column in series.columns()]
    body = b"".join(parts)
    write_atomic(path, body + CHECKSUM.pack(zlib.crc32(body)), fsync=False)


def load(path: Path, log: Path) -> tuple[History, int]:
    """Return the history and the log offset it covers. Raise ``InvalidCache`` and ``OSError``.

    The file is read in pieces, so that the app, which loads it often, does not need its size twice.
    """
    with open_regular(path) as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise InvalidCache("was not written by this version")
        if not _has_valid_checksum(file):
            raise InvalidCache("is damaged")
        file.seek(0)
        _, offset, *fingerprint, index_size = HEADER.unpack(file.read(HEADER.size))
        if tuple(fingerprint) != _fingerprint(log, offset):
            raise InvalidCache("was made from another log")
        try:
            return _read_series(file, log, index_size), offset
        except (ValueError, TypeError, KeyError, AttributeError, EOFError, OverflowError, RecursionError):
            raise InvalidCache("was not written by this version") from None


def _read_series(file: BinaryIO, log: Path, index_size: int) -> History:
    """Read the index and the columns. Raise whatever a file of another layout leads to."""
    dedup, byteorder, sizes, marks = json.loads(file.read(index_size))
    if byteorder != sys.byteorder or list(sizes) != list(SERIES):
        raise ValueError(byteorder)
    history = History(log)
    history.dedup = StepDedup(**dedup)
    history.marks.load(marks)
    for name, (width, count) in sizes.items():
        series = history.series[name]
        series.width = width
        if count > series_module.CAPACITY:
            raise ValueError(count)
        for column, typecode in COLUMNS.items():
            values = array(typecode)
            values.fromfile(file, count)
            setattr(series, column, values)
    return history


def _has_valid_checksum(file: BinaryIO) -> bool:
    """Return whether the file ends with the CRC of everything before."""
    left = os.fstat(file.fileno()).st_size - CHECKSUM.size
    if left < HEADER.size:
        return False
    file.seek(0)
    crc = 0
    while left > 0 and (data := file.read(min(left, READ_BYTES))):
        crc, left = zlib.crc32(data, crc), left - len(data)
    return file.read() == CHECKSUM.pack(crc)


def _fingerprint(log: Path, offset: int) -> tuple[int, int]:
    """Return CRCs of the first and of the last bytes before ``offset``; zeros if the log is shorter than that."""
    if (fd := open_log(log)) is None:
        return 0, 0
    try:
        if os.fstat(fd).st_size < offset:
            return 0, 0
        size = min(FINGERPRINT_BYTES, offset)
        return zlib.crc32(os.pread(fd, size, 0)), zlib.crc32(os.pread(fd, size, offset - size))
    finally:
        os.close(fd)
