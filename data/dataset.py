"""Reads sequences for training and validation from packed shards."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from data import order
from data.cursor import Cursor
from data.id_check import check_block, check_ids
from data.shards import ShardSet
from profiles.errors import UserError


class PackedBinDataset:
    """The windows of one split at one context length.

    It keeps no position: callers pass a :class:`Cursor` and get the next one back. So resuming is exact and instant,
    and splitting a step into several calls never changes what it reads. :meth:`read_batch` costs the copy of
    ``n * (context + 1)`` ids from the page cache and their conversion to int64, plus about 10 microseconds a sequence.
    """

    def __init__(self, shards: ShardSet, context: int, vocab_size: int, seed: int) -> None:
        """Window the opened ``shards``; reads no token. Raise ``UserError`` if every shard is too short."""
        if context < 1:
            raise UserError(f"batch.context: {context} must be at least 1")
        self.context = context
        self.vocab_size = vocab_size
        self.seed = seed
        self._set = shards
        self.shards = shards.shards
        self._ends = order.window_ends((shard.tokens for shard in self.shards), context)
        if not self.sequences:
            longest = max(self.shards, key=lambda shard: shard.tokens)
            raise UserError(
                f"batch.context: {context} is longer than a shard: the longest, {longest.path}, has "
                f"{longest.tokens} tokens: use a context below {longest.tokens}, or pack longer shards"
            )

    def at_context(self, context: int) -> PackedBinDataset:
        """Return the windows of the same shards at another context length. Raise ``UserError`` as the constructor."""
        return PackedBinDataset(self._set, context, self.vocab_size, self.seed)

    @property
    def sequences(self) -> int:
        """Windows in one epoch."""
        return self._ends[-1]

    @property
    def tokens(self) -> int:
        """Tokens in all shards of the split, including those in no window."""
        return self._set.tokens

    def check_ids(self, seconds: float) -> int:
        """Return how many tokens are known to be within the vocabulary after a look of at most about ``seconds``.

        Raise ``UserError`` for one that is not.
        """
        return check_ids(self._set, self.vocab_size, seconds)

    def initial_cursor(self) -> Cursor:
        """The cursor of a new run."""
        return Cursor(self.seed, self.context)

    def locate(self, epoch: int, i: int, seed: int | None = None) -> tuple[int, int]:
        """Return (index in ``shards``, offset in tokens) of the ``i``-th sequence of an epoch: a pure function."""
        return order.locate_sequence(self.seed if seed is None else seed, epoch, i, self._ends, self.context)

    def read_batch(self, cursor: Cursor, n: int) -> tuple[npt.NDArray[np.int64], Cursor]:
        """Return the next ``n`` sequences, (n, context + 1) int64, and the cursor after them.

        The batch continues into the next epoch where one ends. The cursor's seed decides the order. Raise
        ``UserError`` for an id outside the vocabulary and for a cursor that cannot belong to these shards,
        ``ValueError`` for a cursor of another context.
        """
        if cursor.context != self.context:
            raise ValueError(f"the cursor has context {cursor.context}, the dataset {self.context}")
        if cursor.position >= self.sequences:
            raise UserError(
                f"data cursor: sequence {cursor.position} is past the end of an epoch of {self.sequences}: the shards "
                f"in {self.shards[0].path.parent} are not those the run started with: restore them, or start a new run "
                "from the weights with --init-from"
            )
        places = []
        for k in range(cursor.position, cursor.position + n):
            epochs, i = divmod(k, self.sequences)
            places.append(self.locate(cursor.epoch + epochs, i, cursor.seed))
        return self._read(places), cursor.advance(n, self.sequences)

    def read_first(self, n: int) -> npt.NDArray[np.int64]:
        """Return the first ``n`` windows in file order, for validation: (min(n, sequences), context + 1) int64."""
        return self._read(order.locate_window(w, self._ends, self.context) for w in range(min(n, self.sequences)))

    def _read(self, places: Iterable[tuple[int, int]]) -> npt.NDArray[np.int64]:
        places = list(places)
        length = self.context + 1
        out = np.empty((len(places), length), np.int64)
        for row, (shard, offset) in zip(out, places, strict=True):
            row[:] = self._set.read(shard, offset, length)
        # On a GPU an id out of range fails an assertion in a kernel, which ends the process: check here.
        if out.size and not (out.min() >= 0 and out.max() < self.vocab_size):
            for row, (shard, offset) in zip(out, places, strict=True):
                check_block(self.shards[shard], offset, row, self.vocab_size)
        return out
