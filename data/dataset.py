"""Reads sequences for training and validation from the shards of one phase, or of a mixture of several."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.cursor import Cursor
from data.id_check import check_block, check_ids
from data.sequences import Location, Sequences
from data.shard_file import Shard
from data.shards import ShardSet
from profiles.errors import UserError


@dataclass(frozen=True, slots=True)
class Source:
    """The shards of a phase, and how often the mixture takes from it. ``name`` is empty where there is only one."""

    name: str
    weight: float
    shards: ShardSet


class PackedBinDataset:
    """The windows of one split at one context length.

    It keeps no position: callers pass a :class:`Cursor` and get the next one back. So resuming is exact and instant,
    and splitting a step into several calls never changes what it reads. Several threads may read at once.
    :meth:`read_batch` costs the copy of ``n * (context + 1)`` ids from the page cache and their conversion to int64,
    plus about 10 microseconds a sequence.
    """

    def __init__(self, sources: tuple[Source, ...], context: int, vocab_size: int, seed: int) -> None:
        """Window the opened ``sources``; reads no token. Raise ``UserError`` if every shard of one is too short."""
        if context < 1:
            raise UserError(f"batch.context: {context} must be at least 1")
        self.context = context
        self.vocab_size = vocab_size
        self.seed = seed
        self.sources = sources
        tokens = [[shard.tokens for shard in source.shards.shards] for source in sources]
        self.order = Sequences([s.name for s in sources], [s.weight for s in sources], tokens, context)
        for source, count in zip(sources, self.order.counts, strict=True):
            if not count:
                raise _too_short(source.shards.shards, context)

    def at_context(self, context: int) -> PackedBinDataset:
        """Return the windows of the same shards at another context length. Raise ``UserError`` as the constructor."""
        return PackedBinDataset(self.sources, context, self.vocab_size, self.seed)

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The shards of all sources."""
        return tuple(shard for source in self.sources for shard in source.shards.shards)

    @property
    def sequences(self) -> int:
        """Windows in one epoch of all sources."""
        return self.order.total

    @property
    def tokens(self) -> int:
        """Tokens in all shards of the split, including those in no window."""
        return sum(source.shards.tokens for source in self.sources)

    def check_ids(self, seconds: float) -> int:
        """Return how many tokens are known to be within the vocabulary after a look of at most about ``seconds``.

        Raise ``UserError`` for one that is not.
        """
        share = seconds / len(self.sources)
        return sum(check_ids(source.shards, self.vocab_size, share) for source in self.sources)

    def initial_cursor(self) -> Cursor:
        """The cursor of a new run."""
        return self.order.start(self.seed)

    def advance(self, cursor: Cursor, n: int) -> Cursor:
        """Return the cursor after ``n`` more sequences; reads nothing. Raise as :meth:`read_batch`."""
        return self.order.advance(cursor, n)

    def read_batch(self, cursor: Cursor, n: int) -> tuple[npt.NDArray[np.int64], Cursor]:
        """Return the next ``n`` sequences, (n, context + 1) int64, and the cursor after them.

        The batch continues into the next epoch where one ends. The cursor's seed decides the order. Raise
        ``UserError`` for an id outside the vocabulary and for a cursor that cannot belong to these shards,
        ``ValueError`` for a cursor of another context.
        """
        return self._read(self.order.after(cursor, n)), self.order.advance(cursor, n)

    def read_first(self, n: int) -> dict[str, npt.NDArray[np.int64]]:
        """Return the first windows of each source in file order, for validation: (windows, context + 1) int64.

        They are ``n`` together, divided by the weights; fewer where a source has fewer.
        """
        places = list(self.order.first(n))
        return {
            source.name: self._read(place for place in places if place.source == number)
            for number, source in enumerate(self.sources)
        }

    def _read(self, places: Iterable[Location]) -> npt.NDArray[np.int64]:
        places = list(places)
        length = self.context + 1
        out = np.empty((len(places), length), np.int64)
        for row, place in zip(out, places, strict=True):
            row[:] = self.sources[place.source].shards.read(place.shard, place.offset, length)
        # On a GPU an id out of range fails an assertion in a kernel, which ends the process: check here.
        if out.size and not (out.min() >= 0 and out.max() < self.vocab_size):
            for row, place in zip(out, places, strict=True):
                shard = self.sources[place.source].shards.shards[place.shard]
                check_block(shard, place.offset, row, self.vocab_size)
        return out


def _too_short(shards: tuple[Shard, ...], context: int) -> UserError:
    longest = max(shards, key=lambda shard: shard.tokens)
    return UserError(
        f"batch.context: {context} is longer than a shard: the longest, {longest.path}, has "
        f"{longest.tokens} tokens: use a context below {longest.tokens}, or pack longer shards"
    )
