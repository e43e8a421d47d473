"""Finds, checks, memory-maps and writes packed token files (shards).

A shard is a flat little-endian array of token ids, either bare (nanoGPT) or behind the 1024-byte header of llm.c and
modded-nanogpt: 256 int32, of which the first three are magic, version and number of tokens.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from profiles.errors import UserError
from profiles.printable import brief
from profiles.reader import Table, open_regular, read_json

HEADER_BYTES = 1024
DATASET_JSON = "dataset.json"
UINT16: np.dtype[Any] = np.dtype("<u2")
UINT32: np.dtype[Any] = np.dtype("<u4")
DTYPES = {"uint16": UINT16, "uint32": UINT32}
# llm.c writes version 1 with 16-bit ids and version 7 with 32-bit ids (dev/data/data_common.py).
_MAGICS = {20240520: UINT16, 20240801: UINT32}
_VERSIONS = {UINT16: 1, UINT32: 7}


@dataclass(frozen=True, slots=True)
class Shard:
    """One packed file: ``header`` bytes (0 or 1024), then ``tokens`` ids of ``dtype``."""

    path: Path
    dtype: np.dtype[Any]
    tokens: int
    header: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """The ``dataset.json`` of a phase; fields it does not have are None."""

    path: Path
    dtype: np.dtype[Any] | None
    vocab_size: int | None
    raw: dict[str, Any]


class ShardSet:
    """The shards of one split, ordered by name. A file is mapped on first use and stays mapped."""

    def __init__(self, shards: tuple[Shard, ...]) -> None:
        self.shards = shards
        self.tokens = sum(shard.tokens for shard in shards)
        self._maps: dict[int, npt.NDArray[Any]] = {}

    def ids(self, index: int) -> npt.NDArray[Any]:
        """Return all ids of shard ``index``: a read-only memory map, (tokens,) uint16 or uint32."""
        ids = self._maps.get(index)
        if ids is None:
            ids = self._maps[index] = map_shard(self.shards[index])
        return ids


def open_shards(root: Path, phase: str, split: str, vocab_size: int) -> ShardSet:
    """Open the shards ``<root>/<phase>/<split>/*.bin``; ``split`` is "train", "val" or a bucket such as "val/code".

    If that directory does not exist, open ``<root>/<phase>/<phase>-<split>-*.bin``. Bare files hold uint16 for a
    vocabulary of up to 65536 ids, else uint32, unless the phase's ``dataset.json`` names a dtype. This reads only
    headers and sizes. Raise ``UserError`` if something is missing, damaged, or needs a larger vocabulary.
    """
    files = split_files(root, phase, split)
    manifest = read_manifest(root / phase)
    if manifest and manifest.vocab_size and manifest.vocab_size > vocab_size:
        raise UserError(
            f"{manifest.path}: its vocabulary has {manifest.vocab_size} ids, the model's only {vocab_size}: "
            f"use a model with a vocabulary of at least {manifest.vocab_size}, or other data"
        )
    bare = bare_dtype(manifest, vocab_size)
    return ShardSet(tuple(read_shard(path, bare) for path in files))


def bare_dtype(manifest: Manifest | None, vocab_size: int) -> np.dtype[Any]:
    """Return the dtype of files without a header: the manifest's, else the one that fits the vocabulary."""
    if manifest and manifest.dtype is not None:
        return manifest.dtype
    return UINT16 if ((manifest and manifest.vocab_size) or vocab_size) <= 65536 else UINT32


def bin_files(folder: Path, prefix: str = "") -> list[Path]:
    """Return the ``.bin`` files of a folder, ordered by name, without hidden ones (macOS writes ``._x.bin``)."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror}): check the path and its permissions") from error
    return [folder / name for name in names if name.startswith(prefix) and name.endswith(".bin") and name[0] != "."]


def read_shard(path: Path, bare: np.dtype[Any]) -> Shard:
    """Return the layout of one file, from its header and size; ``bare`` is the dtype of a file without a header.

    Raise ``UserError`` if the file is unreadable, empty, of an unknown version or of an impossible size.
    """
    try:
        with open_regular(path) as file:
            head = file.read(HEADER_BYTES)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): check its permissions, or remove it") from error
    if size == 0:
        raise UserError(f"{path}: empty shard (0 bytes): pack it again or remove it")
    magic = int.from_bytes(head[:4], "little")
    if magic in _MAGICS:
        return _with_header(path, _MAGICS[magic], magic, head, size)
    if size % bare.itemsize:
        raise UserError(
            f"{path}: {size} bytes are not a whole number of {bare.itemsize}-byte {bare.name} tokens: "
            f"the file is truncated, or has another dtype (name it in {DATASET_JSON})"
        )
    return Shard(path, bare, size // bare.itemsize, 0)


def _with_header(path: Path, dtype: np.dtype[Any], magic: int, head: bytes, size: int) -> Shard:
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
    return Shard(path, dtype, tokens, HEADER_BYTES)


def map_shard(shard: Shard) -> npt.NDArray[Any]:
    """Return the ids of a shard, (tokens,), mapped read-only from its file."""
    try:
        mapped = np.memmap(shard.path, shard.dtype, mode="r", offset=shard.header, shape=(shard.tokens,))
    except (OSError, ValueError) as error:
        # ValueError: the file has shrunk since its size was read.
        raise UserError(f"{shard.path}: cannot be mapped ({error}): was the file changed while in use?") from error
    # A plain ndarray: slicing an np.memmap takes several times as long.
    return mapped.view(np.ndarray)


def write_shard(path: Path, ids: npt.NDArray[Any]) -> None:
    """Write an llm.c header and ``ids``, (tokens,) uint16 or uint32, and fsync the file. Raise ``OSError``."""
    dtype = ids.dtype.newbyteorder("<")
    header = np.zeros(HEADER_BYTES // 4, UINT32)
    magic = next(magic for magic, known in _MAGICS.items() if known == dtype)
    header[:3] = magic, _VERSIONS[dtype], len(ids)
    with path.open("wb") as file:
        file.write(header.tobytes())
        file.write(ids.astype(dtype, copy=False).tobytes())
        file.flush()
        os.fsync(file.fileno())


def read_manifest(folder: Path) -> Manifest | None:
    """Return the ``dataset.json`` of a phase, or None if it has none. Raise ``UserError`` if it is invalid."""
    path = folder / DATASET_JSON
    try:
        raw = read_json(path)
    except FileNotFoundError:
        return None
    dtype, vocab = raw.get("dtype"), raw.get("vocab_size")
    if dtype is not None and not (isinstance(dtype, str) and dtype in DTYPES):
        raise UserError(f"{path}: dtype: {brief(dtype)} is not one of {', '.join(DTYPES)}")
    if vocab is not None:
        vocab = Table(raw, str(path)).integer("vocab_size", low=1)
    return Manifest(path, DTYPES[dtype] if dtype else None, vocab, raw)


def split_files(root: Path, phase: str, split: str) -> list[Path]:
    """Return the files of a split, found as in ``open_shards``. Raise ``UserError`` if there are none."""
    folder = root / phase / split
    advice = (
        f"build a small corpus with `make demo`, or put shards at {folder}/{phase}-{split.replace('/', '-')}-000.bin"
    )
    if not root.is_dir():
        raise UserError(f"data.root: {root} is not a directory: {advice}")
    if not (root / phase).is_dir():
        there = ", ".join(sorted(p.name for p in root.iterdir() if p.is_dir() and p.name[0] != ".")) or "none"
        raise UserError(f"data.phase: {root} has no {phase!r} (its phases: {there}): {advice}")
    if folder.is_dir():
        if files := bin_files(folder):
            return files
        raise UserError(f"{folder}: holds no .bin file: {advice}")
    if files := bin_files(root / phase, prefix=f"{phase}-{split}-"):
        return files
    raise UserError(f"{root / phase}: has no {split!r} split: {advice}")
