"""Reads sequences of shards that a fingerprint describes, whose files may be gone or changed by now."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data.cursor import Cursor
from data.dtypes import DTYPES
from data.fingerprint import Fingerprint, same_content
from data.sequences import Sequences
from data.shard_file import BareIds, read_shard
from data.shards import ShardSet
from profiles.errors import UserError


@dataclass(frozen=True, slots=True)
class RecordedSequence:
    """``ids``, (context + 1,) int64, from token ``offset`` of a shard on; when it is read, and where.

    ``source`` is that of a mixture, else empty; ``phase`` is its folder.
    """

    source: str
    phase: Path
    shard: Path
    offset: int
    epoch: int
    position: int
    ids: npt.NDArray[np.int64]


class RecordedShards:
    """The training windows of recorded data at one context length. ``folder``: of the phase, or of all sources."""

    def __init__(self, folder: Path, data: Fingerprint, context: int) -> None:
        self.folder = folder
        self.data = data
        self.context = context
        self._sources = data.sources("train")
        weights = [data.weights.get(name, 1.0) for name in self._sources]
        tokens = [[shard.tokens for shard in shards] for shards in self._sources.values()]
        self.order = Sequences(list(self._sources), weights, tokens, context)

    @property
    def sequences(self) -> int:
        """Windows in one epoch of all sources."""
        return self.order.total

    def at_context(self, context: int) -> RecordedShards:
        """Return the windows of the same shards at another context length."""
        return RecordedShards(self.folder, self.data, context)

    def read(self, cursor: Cursor) -> RecordedSequence:
        """Return the next sequence. Raise ``UserError`` where its shard is no longer there as it was."""
        (place,) = self.order.after(cursor, 1)
        name = self.order.names[place.source]
        recorded, length = self._sources[name][place.shard], self.context + 1
        phase = self.folder / name
        path = phase / recorded.name
        if not same_content(path, recorded):
            state = "has changed since" if path.exists() else "is missing"
            raise UserError(f"{path}: {state}; this step read {length} tokens of it from token {place.offset}")
        shard = read_shard(path, BareIds(DTYPES[recorded.dtype], 0))
        ids = ShardSet((shard,)).read(0, place.offset, length).astype(np.int64)
        return RecordedSequence(name, phase, path, place.offset, place.epoch, place.position, ids)
