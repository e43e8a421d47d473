"""Saves and loads ``history.bin``, a cache of the series of a run up to an offset of its log.

If it is invalid, the series are built from the log. Layout:

    magic, offset, CRC of the log's first bytes, CRC of the log's last bytes before the offset, length of the index
    index: JSON: state of the dedup, byte order, marks, and name, width, length and newest value of each series
    the columns of each series, one after another
    CRC of everything before

The two CRCs of the log detect a cache that belongs to another log.
"""

from __future__ import annotations

import os
import struct
import sys
import zlib
from array import array
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec

from engine.events import series as series_module
from engine.events.history import History
from engine.events.log import open_log
from engine.events.marks import Mark
from engine.events.metrics import SERIES
from engine.events.series import COLUMNS
from engine.events.step_dedup import StepDedup
from engine.events.types import Memory
from engine.host.files import write_atomic
from profiles.reader import open_regular

MAGIC = b"MLAHIST4"
HEADER = struct.Struct("<8sQIII")
CHECKSUM = struct.Struct("<I")
READ_BYTES = 1 << 16
FINGERPRINT_BYTES = 4096  # of the log, at either end


class _Series(msgspec.Struct):
    width: Annotated[int, msgspec.Meta(ge=1)]
    length: int
    newest: float | None


class _Index(msgspec.Struct):
    """What the file has besides the columns of the series."""

    dedup: StepDedup
    byteorder: str
    series: dict[str, _Series]
    marks: list[Mark]
    memory: Memory | None


class InvalidCache(Exception):
    """The cache cannot be used; the message says why."""


def save(path: Path, log: Path, history: History, offset: int) -> None:
    """Replace the file. Raise ``OSError``."""
    sizes = {name: _Series(one.width, len(one), one.newest) for name, one in history.series.items()}
    marks = history.marks
    index = msgspec.json.encode(_Index(history.dedup, sys.byteorder, sizes, marks.to_list(), marks.memory))
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
        except (msgspec.DecodeError, ValueError, EOFError, OverflowError, RecursionError):
            raise InvalidCache("was not written by this version") from None


def _read_series(file: BinaryIO, log: Path, index_size: int) -> History:
    """Read the index and the columns. Raise whatever a file of another layout leads to."""
    index = msgspec.json.decode(file.read(index_size), type=_Index)
    if index.byteorder != sys.byteorder or list(index.series) != list(SERIES):
        raise ValueError(index.byteorder)
    history = History(log)
    history.dedup = index.dedup
    history.marks.load(index.marks, index.memory)
    for name, stored in index.series.items():
        series = history.series[name]
        series.width, series.newest = stored.width, stored.newest
        if not 0 <= stored.length <= series_module.CAPACITY:
            raise ValueError(stored.length)
        for column, typecode in COLUMNS.items():
            values = array(typecode)
            values.fromfile(file, stored.length)
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
