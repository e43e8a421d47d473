"""Reads the layout of one token file (a shard) as it lies, and writes one.

A shard is a flat little-endian array of token ids. What they are is said by the file itself (the 1024-byte header of
llm.c and modded-nanogpt: 256 int32, of which the first three are magic, version and number of tokens; the header of
NumPy's ``.npy``), by an index beside it (``data/index_files.py``), by the phase's ``dataset.json``, or it is evident
from the ids (``data/foreign.py``). Otherwise the vocabulary decides, as in nanoGPT.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from data import foreign
from data.dtypes import UINT16, UINT32
from data.index_files import index_of
from profiles.errors import UserError
from profiles.printable import brief, one_line
from profiles.reader import open_regular

HEADER_BYTES = 1024
# llm.c writes version 1 with 16-bit ids and version 7 with 32-bit ids (dev/data/data_common.py).
MAGICS = {20240520: UINT16, 20240801: UINT32}
_VERSIONS = {UINT16: 1, UINT32: 7}
_BEGINNING_BYTES = 4096
_LEAST_SAMPLE, _LARGEST_SAMPLE = 1 << 13, 1 << 22  # bytes of a file whose ids must show their type
_WRITE_TOKENS = 1 << 20
_LARGEST_16_BIT_VOCABULARY = 65536
BARE = "bare"
_LONGEST = 60  # characters of what a header says
_AGAIN = "copy or pack it again"


@dataclass(frozen=True, slots=True)
class Shard:
    """One token file: ``header`` bytes, then ``tokens`` ids of ``dtype``.

    ``modified`` (its mtime in nanoseconds) and ``beginning`` (a checksum of its first bytes) tell whether the file was
    replaced since. ``format``: llm.c, npy, megatron, datatrove or bare. ``evident``: the type is known from the ids
    alone. ``documents``: how many, where an index says so.
    """

    path: Path
    dtype: np.dtype[Any]
    tokens: int
    header: int
    modified: int
    beginning: int
    format: str = BARE
    evident: bool = False
    documents: int | None = None

    @property
    def bytes(self) -> int:
        return self.header + self.tokens * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class BareIds:
    """How to read files that do not say what their ids are.

    They are of the ``declared`` type if there is one, else of that which the first ``sample`` bytes show, else of the
    one that ``vocab_size`` ids (0: unknown) need.
    """

    declared: np.dtype[Any] | None
    vocab_size: int
    sample: int = _LARGEST_SAMPLE

    def among(self, files: int) -> BareIds:
        """Return how to read one of so many files: the more there are, the less is looked at of each."""
        share = 8 * _LARGEST_SAMPLE // max(files, 1)
        return BareIds(self.declared, self.vocab_size, min(max(share, _LEAST_SAMPLE), _LARGEST_SAMPLE))


def read_shard(path: Path, bare: BareIds) -> Shard:
    """Return the layout of one file, from its size, its first bytes and the index beside it.

    Raise ``UserError`` if the file is unreadable, of another kind, empty, of an unknown version or of an impossible
    size.
    """
    try:
        with open_regular(path) as file:
            return _read_open(path, file, bare)
    except OSError as error:
        reason = f"{error.strerror}; it is a link to {os.readlink(path)}" if path.is_symlink() else error.strerror
        raise UserError(f"{path}: cannot be read ({reason}): check its permissions, or remove it") from error


def _read_open(path: Path, file: BinaryIO, bare: BareIds) -> Shard:
    status = os.fstat(file.fileno())
    size, head = status.st_size, os.pread(file.fileno(), _BEGINNING_BYTES, 0)
    if size == 0:
        raise UserError(f"{path}: empty shard (0 bytes): pack it again or remove it")
    header, evident, documents = 0, False, None
    magic = int.from_bytes(head[:4], "little")
    if magic in MAGICS:
        form, dtype, header = "llm.c", MAGICS[magic], HEADER_BYTES
        _check_header(path, dtype, magic, head, size)
    elif head.startswith(foreign.NUMPY_MAGIC):
        form = "npy"
        dtype, header = _numpy_layout(path, file, size)
    else:
        foreign.check_kind(path, head, size)
        if index := index_of(path, size):
            form, documents = index.writer, index.documents
            dtype = index.dtype
        else:
            form = BARE
            dtype, evident = _bare_dtype(path, file, bare)
        if size % dtype.itemsize:
            raise UserError(
                f"{path}: {size} bytes are not a whole number of {dtype.itemsize}-byte {dtype.name} tokens: "
                "the file is truncated, or has another dtype (name it in dataset.json)"
            )
    tokens = (size - header) // dtype.itemsize
    beginning = checksum_of_beginning(head)
    return Shard(path, dtype, tokens, header, status.st_mtime_ns, beginning, form, evident, documents)


def _bare_dtype(path: Path, file: BinaryIO, bare: BareIds) -> tuple[np.dtype[Any], bool]:
    """Return the type of the ids of a file without header and index, and whether they alone show it."""
    if bare.declared is not None:
        return bare.declared, False
    ids = os.pread(file.fileno(), bare.sample, 0)
    foreign.check_byte_order(path, ids, bare.vocab_size)
    if evident := foreign.evident_dtype(ids, bare.vocab_size):
        return evident, True
    return (UINT16 if bare.vocab_size <= _LARGEST_16_BIT_VOCABULARY else UINT32), False


def _numpy_layout(path: Path, file: BinaryIO, size: int) -> tuple[np.dtype[Any], int]:
    """Return the type of the ids in a ``.npy`` and the size of its header. Nothing is unpickled."""
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        version = np.lib.format.read_magic(file)
        if version not in read:
            raise ValueError(f"version {version[0]}.{version[1]}")
        shape, _, dtype = read[version](file)
    except Exception as error:  # the header is an expression of Python: its parser has many errors
        raise UserError(f"{path}: its NumPy header is damaged ({brief(str(error))}): {_AGAIN}") from None
    if dtype.kind not in "iu" or dtype.name == "int8":
        raise UserError(
            f"{path}: holds a NumPy array of {one_line(str(dtype), _LONGEST)}, not of token ids: pack it again"
        )
    if dtype.byteorder == ">":
        raise foreign.big_endian(path)
    if len(shape) != 1:
        raise UserError(
            f"{path}: holds a NumPy array of shape {one_line(str(shape), _LONGEST)}, not one row of ids: "
            "save it with .reshape(-1)"
        )
    if file.tell() + shape[0] * dtype.itemsize != size:
        raise UserError(
            f"{path}: its NumPy header says {brief(shape[0])} {dtype.name} tokens"
            f" ({brief(shape[0] * dtype.itemsize)} bytes), the file holds {size - file.tell()} bytes: {_AGAIN}"
        )
    if not shape[0]:
        raise UserError(f"{path}: empty shard (0 tokens): pack it again or remove it")
    return dtype, file.tell()


def checksum_of_beginning(head: bytes) -> int:
    """Return a checksum of the first bytes of a file; those beyond the 4096th do not count."""
    return zlib.crc32(head[:_BEGINNING_BYTES])


def read_beginning(descriptor: int) -> bytes:
    """Return as much of a file as ``checksum_of_beginning`` needs. Raise ``OSError``."""
    return os.pread(descriptor, _BEGINNING_BYTES, 0)


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
    with path.open("wb") as file:
        file.write(shard_header(dtype, len(ids)))
        for start in range(0, len(ids), _WRITE_TOKENS):
            file.write(ids[start : start + _WRITE_TOKENS].astype(dtype, copy=False).tobytes())
        file.flush()
        os.fsync(file.fileno())


def shard_header(dtype: np.dtype[Any], tokens: int) -> bytes:
    """Return the header of a shard of ``tokens`` ids of ``dtype``, uint16 or uint32."""
    header = np.zeros(HEADER_BYTES // 4, UINT32)
    magic = next(magic for magic, known in MAGICS.items() if known == dtype)
    header[:3] = magic, _VERSIONS[dtype], tokens
    return header.tobytes()
