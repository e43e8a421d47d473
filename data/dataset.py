"""Sequences for training and validation, read from packed shards."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data import order
from data.cursor import Cursor
from data.shards import open_shards
from profiles.errors import UserError


class PackedBinDataset:
    """The windows of one split at one context length.

    It keeps no position: a :class:`Cursor` goes in and comes out, so resuming is exact and instant, and how a step is
    split into calls never changes what it reads. The floor of a :meth:`take` is the copy of ``n * (context + 1)`` ids
    out of the page cache and their widening to 8 bytes each; finding a sequence adds a few microseconds.
    """

    def __init__(self, root: Path, phase: str, split: str, context: int, vocab_size: int, seed: int) -> None:
        """Reads headers and sizes only. UserError: see :func:`open_shards`, and where no shard holds a whole window."""
        if context < 1:
            raise UserError(f"batch.context: {context} is not from 1 up")
        self.context = context
        self.vocab_size = vocab_size
        self.seed = seed
        self._set = open_shards(root, phase, split, vocab_size)
        self.shards = self._set.shards
        self._ends = tuple(accumulate(order.windows(shard.tokens, context) for shard in self.shards))
        if not self.sequences:
            longest = max(self.shards, key=lambda shard: shard.tokens)
            raise UserError(
                f"batch.context: {context} is longer than a shard: the longest of {phase}/{split}, {longest.path}, has "
                f"{longest.tokens} tokens: lower the context below {longest.tokens}, or pack longer shards"
            )

    @property
    def sequences(self) -> int:
        """Windows in one epoch."""
        return self._ends[-1]

    @property
    def tokens(self) -> int:
        """Tokens in all shards of the split, those in no window included."""
        return self._set.tokens

    def start(self) -> Cursor:
        """The cursor of a new run."""
        return Cursor(self.seed, self.context)

    def locate(self, epoch: int, i: int, seed: int | None = None) -> tuple[int, int]:
        """The ``i``-th sequence of an epoch as (index in ``shards``, offset in tokens): a pure function."""
        return order.sequence(self.seed if seed is None else seed, epoch, i, self._ends, self.context)

    def take(self, cursor: Cursor, n: int) -> tuple[npt.NDArray[np.int64], Cursor]:
        """The next ``n`` sequences, (n, context + 1) int64, and the cursor behind them; goes on into the next epoch.

        The order is that of the cursor's seed. Raises UserError for an id outside the vocabulary and for a cursor that
        cannot belong to these shards, ValueError for one of another context.
        """
        if cursor.context != self.context:
            raise ValueError(f"a cursor of context {cursor.context} in a dataset of context {self.context}")
        if cursor.position >= self.sequences:
            raise UserError(
                f"data cursor: sequence {cursor.position} of an epoch of {self.sequences}: the shards next to "
                f"{self.shards[0].path} are not those the run began with: bring them back, or start from weights alone"
            )
        places = []
        for k in range(cursor.position, cursor.position + n):
            epochs, i = divmod(k, self.sequences)
            places.append(self.locate(cursor.epoch + epochs, i, cursor.seed))
        return self._read(places), cursor.advance(n, self.sequences)

    def first(self, n: int) -> npt.NDArray[np.int64]:
        """The first ``n`` windows in file order, (m, context + 1) int64 with m = min(n, sequences); for validation."""
        return self._read(order.place(w, self._ends, self.context) for w in range(min(n, self.sequences)))

    def _read(self, places: Iterable[tuple[int, int]]) -> npt.NDArray[np.int64]:
        places = list(places)
        length = self.context + 1
        out = np.empty((len(places), length), np.int64)
        for row, (shard, offset) in zip(out, places, strict=True):
            row[:] = self._set.ids(shard)[offset : offset + length]
        # On a GPU an id out of range is an assertion in a kernel and the end of the process, so it must not get there.
        if out.size and out.max() >= self.vocab_size:
            row_number, column = (int(v) for v in np.argwhere(out >= self.vocab_size)[0])
            shard, offset = places[row_number]
            raise UserError(
                f"{self.shards[shard].path}: token {offset + column} is id {out[row_number, column]}, outside the "
                f"model's vocabulary of {self.vocab_size}: take the model or the shards that belong to one tokenizer"
            )
        return out
