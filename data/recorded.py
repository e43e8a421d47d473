"""Reads sequences of shards that a fingerprint describes, whose files may be gone or changed by now."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from data import order
from data.cursor import Cursor
from data.dtypes import DTYPES
from data.fingerprint import ShardPrint, same_content
from data.shard_file import BareIds, read_shard
from data.shards import ShardSet
from profiles.errors import UserError


class RecordedShards:
    """The windows of recorded shards at one context length. ``folder``: that of their phase."""

    def __init__(self, folder: Path, shards: tuple[ShardPrint, ...], context: int) -> None:
        self.folder = folder
        self.shards = shards
        self.context = context
        self._ends = order.window_ends((shard.tokens for shard in shards), context)

    @property
    def sequences(self) -> int:
        """Windows in one epoch."""
        return self._ends[-1]

    def at_context(self, context: int) -> RecordedShards:
        """Return the windows of the same shards at another context length."""
        return RecordedShards(self.folder, self.shards, context)

    def read(self, cursor: Cursor) -> tuple[Path, int, npt.NDArray[np.int64]]:
        """Return the next sequence: its shard, its offset there in tokens, and its ids, (context + 1,) int64.

        Raise ``UserError`` where its shard is no longer there as it was.
        """
        index, offset = order.locate_sequence(cursor.seed, cursor.epoch, cursor.position, self._ends, self.context)
        recorded, length = self.shards[index], self.context + 1
        path = self.folder / recorded.name
        if not same_content(path, recorded):
            state = "has changed since" if path.exists() else "is missing"
            raise UserError(f"{path}: {state}; this step read {length} tokens of it from token {offset}")
        shard = read_shard(path, BareIds(DTYPES[recorded.dtype], 0))
        return path, offset, ShardSet((shard,)).read(0, offset, length).astype(np.int64)
