"""Opens the shards of a split and reads ids from them.

Ids are read with ``pread`` rather than mapped: a file that is cut while a run reads it is then an error with its name,
where an access to a mapped page kills the process with SIGBUS. Only the shards used last are kept open
(``data/open_files.py``), so a split may have more shards than a process may have open files.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data.dtypes import DTYPES
from data.open_files import OPEN_FILES
from data.shard_file import BARE, BareIds, Shard, checksum_of_beginning, read_beginning, read_shard
from data.split_files import split_files
from profiles.errors import NeedsAttentionError, UserError
from profiles.printable import brief
from profiles.reader import Table, read_json

DATASET_JSON = "dataset.json"


@dataclass(frozen=True, slots=True)
class Manifest:
    """The ``dataset.json`` of a phase; fields it does not have are None."""

    path: Path
    dtype: np.dtype[Any] | None
    vocab_size: int | None
    raw: dict[str, Any]


class ShardSet:
    """The shards of one split, ordered by name. Several threads may read at once."""

    def __init__(self, shards: tuple[Shard, ...]) -> None:
        self.shards = shards
        self.tokens = sum(shard.tokens for shard in shards)
        self._files = OPEN_FILES  # its own name for them: at the end of the process that of the module may be gone
        self._touched: dict[int, int] = {}  # index of a shard: its mtime, if it changed and the content did not

    def read(self, index: int, start: int, count: int) -> npt.NDArray[Any]:
        """Return ``count`` ids of shard ``index`` from token ``start`` on: (count,) of its dtype, at most 1 GiB.

        Raise ``UserError`` if the file cannot be read, or is not the one that was opened.
        """
        shard = self.shards[index]
        size = count * shard.dtype.itemsize
        try:
            file = self._files.open(self, index, shard.path)
            self._check_unchanged(index, file.descriptor)
            data = os.pread(file.descriptor, size, shard.header + start * shard.dtype.itemsize)
        except OSError as error:
            raise NeedsAttentionError(
                f"{shard.path}: cannot be read any more ({error.strerror}): put it back, or check its disk"
            ) from error
        if len(data) != size:
            raise _changed(shard, f"ends before token {start + count}")
        return np.frombuffer(data, shard.dtype)

    def _check_unchanged(self, index: int, descriptor: int) -> None:
        """Raise ``UserError`` if another size, or another mtime and other first bytes, show that a file was replaced.

        Another mtime alone is no change: people touch their files so that a cleaner spares them.
        """
        shard, now = self.shards[index], os.fstat(descriptor)
        if now.st_size != shard.bytes:
            raise _changed(shard, f"has {now.st_size} bytes, and had {shard.bytes} when it was opened")
        if now.st_mtime_ns != self._touched.get(index, shard.modified):
            if checksum_of_beginning(read_beginning(descriptor)) != shard.beginning:
                raise _changed(shard, "has other content than when it was opened")
            self._touched[index] = now.st_mtime_ns

    def __del__(self) -> None:
        self._files.close(self)


def _changed(shard: Shard, how: str) -> UserError:
    return NeedsAttentionError(f"{shard.path}: {how}: it was changed while in use; put the original back")


def open_shards(root: Path, phase: str, split: str, vocab_size: int) -> ShardSet:
    """Open the token files of a split, found as ``split_files`` says; "train", "val" or a bucket such as "val/code".

    This reads only sizes, first bytes and indexes. Raise ``UserError`` if something is missing, damaged, of another
    kind, or needs a larger vocabulary.
    """
    files = split_files(root, phase, split)
    manifest = read_manifest(root / phase)
    if manifest and manifest.vocab_size and manifest.vocab_size > vocab_size:
        raise UserError(
            f"{manifest.path}: its vocabulary has {manifest.vocab_size} ids, the model's only {vocab_size}: "
            f"use a model with a vocabulary of at least {manifest.vocab_size}, or other data"
        )
    return ShardSet(read_shards(files, bare_ids(manifest, vocab_size)))


def missing_shards(root: Path, phase: str, split: str) -> list[str]:
    """Return the files of a split that ``dataset.json`` lists and that are not there, as after an unfinished copy."""
    manifest = read_manifest(root / phase)
    listed = manifest.raw.get("sha256") if manifest else None
    names = listed if isinstance(listed, dict) else {}
    return [name for name in names if name.startswith(f"{split}/") and not os.path.exists(root / phase / name)]


def read_shards(files: list[Path], bare: BareIds) -> tuple[Shard, ...]:
    """Return the layout of the files of a split; those that do not say what their ids are all have one type.

    Raise ``UserError`` as ``read_shard``, and if the ids of two files evidently have different types.
    """
    bare = bare.among(len(files))
    return with_one_type([read_shard(path, bare) for path in files], bare)


def with_one_type(shards: Sequence[Shard], bare: BareIds) -> tuple[Shard, ...]:
    """Return ``shards`` with those too short to show their type read as the others beside them show it.

    Raise ``UserError`` if the ids of two evidently have different types.
    """
    shards = list(shards)
    evident = {shard.dtype: shard for shard in shards if shard.evident}
    if len(evident) > 1:
        one, other = list(evident.values())[:2]
        raise UserError(
            f"{other.path}: looks like {other.dtype.name} ids, and {one.path.name} beside it like {one.dtype.name}: "
            "put files of different types into different phases"
        )
    for dtype in evident:  # decides for those that are too short to show their type
        alike = replace(bare, declared=dtype)
        doubtful = [k for k, shard in enumerate(shards) if shard.format == BARE and shard.dtype != dtype]
        for k in doubtful if bare.declared is None else ():
            shards[k] = read_shard(shards[k].path, alike)
    return tuple(shards)


def bare_ids(manifest: Manifest | None, vocab_size: int) -> BareIds:
    """Return how to read files of a phase that do not say what their ids are."""
    return BareIds(manifest.dtype if manifest else None, (manifest and manifest.vocab_size) or vocab_size)


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
