"""Reads the layout of one packed token file (a shard), and writes one.

A shard is a flat little-endian array of token ids, either bare (nanoGPT) or behind the 1024-byte header of llm.c and
modded-nanogpt: 256 int32, of which the first three are magic, version and number of tokens.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data import foreign
from data.dtypes import UINT16, UINT32
from profiles.errors import UserError
from profiles.reader import open_regular

HEADER_BYTES = 1024
# llm.c writes version 1 with 16-bit ids and version 7 with 32-bit ids (dev/data/data_common.py).
MAGICS = {20240520: UINT16, 20240801: UINT32}
_VERSIONS = {UINT16: 1, UINT32: 7}
_SAMPLE_BYTES = 1 << 16
_BEGINNING_BYTES = 4096
_WRITE_TOKENS = 1 << 20


@dataclass(frozen=True, slots=True)
class Shard:
    """One packed file: ``header`` bytes (0 or 1024), then ``tokens`` ids of ``dtype``.

    ``modified`` (its mtime in nanoseconds) and ``beginning`` (a checksum of its first bytes) tell whether the file was
    replaced since.
    """

    path: Path
    dtype: np.dtype[Any]
    tokens: int
    header: int
    modified: int
    beginning: int

    @property
    def bytes(self) -> int:
        return self.header + self.tokens * self.dtype.itemsize


def read_shard(path: Path, bare: np.dtype[Any], named: bool = False) -> Shard:
    """Return the layout of one file, from its size and its first bytes.

    ``bare`` is the dtype of a file without a header; ``named`` if the phase's ``dataset.json`` says so, else a file
    whose ids evidently have another width is refused. Raise ``UserError`` if the file is unreadable, of another kind,
    empty, of an unknown version or of an impossible size.
    """
    try:
        with open_regular(path) as file:
            head = file.read(_SAMPLE_BYTES)
            status = os.fstat(file.fileno())
    except OSError as error:
        reason = f"{error.strerror}; it is a link to {os.readlink(path)}" if path.is_symlink() else error.strerror
        raise UserError(f"{path}: cannot be read ({reason}): check its permissions, or remove it") from error
    size = status.st_size
    if size == 0:
        raise UserError(f"{path}: empty shard (0 bytes): pack it again or remove it")
    magic = int.from_bytes(head[:4], "little")
    if magic in MAGICS:
        dtype, header = MAGICS[magic], HEADER_BYTES
        _check_header(path, dtype, magic, head, size)
    else:
        dtype, header = bare, 0
        foreign.check_kind(path, head, size)
        _check_bare(path, dtype, head, size, named)
    tokens = (size - header) // dtype.itemsize
    return Shard(path, dtype, tokens, header, status.st_mtime_ns, checksum_of_beginning(head))


def checksum_of_beginning(head: bytes) -> int:
    """Return a checksum of the first bytes of a file; those beyond the 4096th do not count."""
    return zlib.crc32(head[:_BEGINNING_BYTES])


def read_beginning(descriptor: int) -> bytes:
    """Return as much of a file as ``checksum_of_beginning`` needs. Raise ``OSError``."""
    return os.pread(descriptor, _BEGINNING_BYTES, 0)


def _check_bare(path: Path, dtype: np.dtype[Any], head: bytes, size: int, named: bool) -> None:
    if not named:
        foreign.check_width(path, head, dtype)
    if size % dtype.itemsize:
        raise UserError(
            f"{path}: {size} bytes are not a whole number of {dtype.itemsize}-byte {dtype.name} tokens: "
            "the file is truncated, or has another dtype (name it in dataset.json)"
        )


def _check_header(path: Path, dtype: np.dtype[Any], magic: int, head: bytes, size: int) -> None:
    if len(head) < HEADER_BYTES:
        raise UserError(
            f"{path}: {size} bytes, less than a header of {HEADER_BYTES}: the file is truncated, copy it again"
        )
    version, tokens = (int(value) for value in np.frombuffer(head, UINT32, count=3)[1:])
    if dtype == UINT16 and version != _VERSIONS[UINT16]:
        raise UserError(f"{path}: header {magic} has unknown version {version}, not 1: pack the file again")
    if size - HEADER_BYTES != tokens * dtype.itemsize:
        raise UserError(
            f"{path}: the header says {tokens} {dtype.name} tokens ({tokens * dtype.itemsize} bytes), "
            f"the file holds {size - HEADER_BYTES} bytes: copy or pack it again"
        )
    if tokens == 0:
        raise UserError(f"{path}: empty shard (0 tokens): pack it again or remove it")


def write_shard(path: Path, ids: npt.NDArray[Any], dtype: np.dtype[Any] | None = None) -> None:
    """Write an llm.c header and ``ids``, (tokens,), and fsync the file. Raise ``OSError``.

    ``dtype`` is uint16 or uint32, by default that of ``ids``. ``ids`` may be a memory map larger than the memory.
    """
    dtype = (dtype or ids.dtype).newbyteorder("<")
    header = np.zeros(HEADER_BYTES // 4, UINT32)
    magic = next(magic for magic, known in MAGICS.items() if known == dtype)
    header[:3] = magic, _VERSIONS[dtype], len(ids)
    with path.open("wb") as file:
        file.write(header.tobytes())
        for start in range(0, len(ids), _WRITE_TOKENS):
            file.write(ids[start : start + _WRITE_TOKENS].astype(dtype, copy=False).tobytes())
        file.flush()
        os.fsync(file.fileno())
