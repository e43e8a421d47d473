"""Reads the index that another program writes beside its token file: the type of the ids and the documents.

Megatron-LM writes ``x.idx`` beside ``x.bin`` (megatron/core/datasets/indexed_dataset.py): the magic, a version
(uint64), a code for the type (uint8), the numbers of sequences and of document ends (uint64); then the length of every
sequence (int32), its first byte in the .bin (int64), and the sequence at which each document ends (int64), after a 0.

datatrove writes ``x.ds.index`` beside ``x.ds``: the end of every document in tokens (uint64). Newer versions also write
``x.ds.metadata``, of which the first line ends with ``|2`` or ``|4``, the bytes of an id
(datatrove/pipeline/tokens/tokenizer.py).
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data.dtypes import UINT16, UINT32
from profiles.errors import UserError
from profiles.reader import open_regular, read_bytes, read_text

MEGATRON_MAGIC = b"MMIDIDX\0\0"
_MEGATRON_DTYPES = {1: "u1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
_MEGATRON_HEADER = struct.Struct("<9sQBQQ")
_DATATROVE = ".ds"
_METADATA_BYTES = 1 << 16
_AGAIN = "copy both again"
_MOST_INDEX_BYTES = 256 << 20  # that are read for the lengths of documents


@dataclass(frozen=True, slots=True)
class Index:
    """What an index says of its token file. ``writer``: the program that wrote both."""

    writer: str
    path: Path
    dtype: np.dtype[Any]
    documents: int


def index_of(path: Path, size: int) -> Index | None:
    """Return the index of the token file ``path`` of ``size`` bytes; None without one.

    Raise ``UserError`` where it cannot be read, is damaged, or is not of this file.
    """
    beside, read = (
        (path.with_name(f"{path.name}.index"), _datatrove)
        if path.suffix == _DATATROVE
        else (path.with_suffix(".idx"), _megatron)
    )
    try:
        return read(path, beside, size)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{beside}: cannot be read ({error.strerror}): check its permissions, or remove it") from None


def document_lengths(path: Path) -> npt.NDArray[np.int64] | None:
    """Return the tokens of each document of a file that has an index, (documents,); None if the index is very large.

    Raise ``UserError`` where it is damaged.
    """
    datatrove = path.suffix == _DATATROVE
    beside = path.with_name(f"{path.name}.index") if datatrove else path.with_suffix(".idx")
    try:
        content = read_bytes(beside, _MOST_INDEX_BYTES) if beside.stat().st_size <= _MOST_INDEX_BYTES else None
    except OSError as error:
        raise UserError(f"{beside}: cannot be read ({error.strerror}): {_AGAIN}") from None
    if content is None:
        return None
    try:
        if datatrove:
            ends = np.frombuffer(content, "<u8").astype(np.int64)
        else:
            _, _, _, sequences, count = _MEGATRON_HEADER.unpack_from(content)
            tokens = np.frombuffer(content, "<i4", sequences, _MEGATRON_HEADER.size)
            last = np.frombuffer(content, "<i8", count, _MEGATRON_HEADER.size + 12 * sequences)
            ends = np.append(0, np.cumsum(tokens, dtype=np.int64))[last[1:]]
    except (ValueError, IndexError, struct.error):
        raise UserError(f"{beside}: its documents are damaged: {_AGAIN}") from None
    lengths = np.diff(ends, prepend=0)
    if len(lengths) and lengths.min() < 0:
        raise UserError(f"{beside}: its documents are damaged: {_AGAIN}")
    return lengths


def _megatron(path: Path, beside: Path, size: int) -> Index | None:
    with open_regular(beside) as file:
        head = file.read(_MEGATRON_HEADER.size)
        if not head.startswith(MEGATRON_MAGIC):
            return None  # of another program
        length = os.fstat(file.fileno()).st_size
        if len(head) < _MEGATRON_HEADER.size:
            raise UserError(f"{beside}: {length} bytes, less than its header: the file is truncated, copy it again")
        _, version, code, sequences, ends = _MEGATRON_HEADER.unpack(head)
        if version != 1 or code not in _MEGATRON_DTYPES:
            what = f"version {version}, not 1" if version != 1 else f"type code {code}, which is not that of token ids"
            raise UserError(f"{beside}: has {what}: pack the data again")
        if length < len(head) + 12 * sequences + 8 * ends:
            raise UserError(f"{beside}: {length} bytes are too few for {sequences} sequences: copy it again")
        dtype, recorded = np.dtype(_MEGATRON_DTYPES[code]), 0
        if sequences:
            last = len(head) + 4 * sequences
            tokens = int.from_bytes(os.pread(file.fileno(), 4, last - 4), "little", signed=True)
            start = int.from_bytes(os.pread(file.fileno(), 8, last + 8 * (sequences - 1)), "little", signed=True)
            recorded = start + tokens * dtype.itemsize
    if recorded != size:
        raise UserError(f"{path}: {size} bytes, and its index {beside.name} says {recorded}: {_AGAIN}")
    return Index("megatron", beside, dtype, max(ends - 1, 0))


def _datatrove(path: Path, beside: Path, size: int) -> Index:
    with open_regular(beside) as file:
        length = os.fstat(file.fileno()).st_size
        if not length or length % 8:
            raise UserError(f"{beside}: {length} bytes are not a whole number of document ends: copy it again")
        tokens = int.from_bytes(os.pread(file.fileno(), 8, length - 8), "little")
    recorded = {2: UINT16, 4: UINT32}.get(_id_bytes(path))
    fitting = [dtype for dtype in (UINT16, UINT32) if tokens * dtype.itemsize == size]
    if not fitting or recorded not in (None, *fitting):
        raise UserError(f"{path}: {size} bytes, and its index {beside.name} says {tokens} tokens: {_AGAIN}")
    return Index("datatrove", beside, fitting[0], length // 8)


def _id_bytes(path: Path) -> int:
    """Return the bytes of an id by datatrove's metadata, or 0."""
    try:
        lines = read_text(path.with_name(f"{path.name}.metadata"), _METADATA_BYTES).splitlines()
    except FileNotFoundError:
        return 0
    number = lines[0].rpartition("|")[2] if lines else ""
    return int(number) if number in ("2", "4") else 0
