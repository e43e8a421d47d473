"""Counts what a run reads of a split: sequences, epochs, and tokens that are in no sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from data.order import window_count
from data.shard_file import Shard


@dataclass(frozen=True, slots=True)
class DataUsage:
    """``sequences`` of ``context`` + 1 tokens make an epoch; the run reads ``read`` of them.

    ``unused`` of the ``tokens`` are in no sequence: those of the ``short`` shards, of at most ``context`` tokens, and
    what is left at the end of the others. ``ignored`` .bin files lie where only a part of the split is looked for.
    """

    context: int
    sequences: int
    read: int
    tokens: int
    unused: int
    shards: int
    short: int
    ignored: int

    @property
    def epochs(self) -> float:
        return self.read / self.sequences if self.sequences else 0.0


def usage_of(shards: Sequence[Shard], context: int, read: int, ignored: int) -> DataUsage:
    """Count the sequences of ``shards`` for a run that reads ``read`` sequences of ``context`` tokens."""
    windows = [window_count(shard.tokens, context) for shard in shards]
    tokens = sum(shard.tokens for shard in shards)
    # Neighbours share a token: the last target of one is the first input of the next.
    used = sum(count * context + 1 for count in windows if count)
    return DataUsage(context, sum(windows), read, tokens, tokens - used, len(shards), windows.count(0), ignored)
