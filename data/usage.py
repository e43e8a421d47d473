"""Counts what a run reads of its data: sequences, epochs, tokens that are in no sequence, and shards read twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from data.dataset import PackedBinDataset
from data.dtypes import UINT16
from data.order import window_count
from data.shard_file import Shard
from data.shards import ShardSet

BLANK = 2048  # tokens; no text has as many of one id


@dataclass(frozen=True, slots=True)
class SourceUsage:
    """A source of a mixture: ``fraction`` of all sequences read are from it, ``read`` of its ``sequences`` an epoch."""

    name: str
    fraction: float
    sequences: int
    read: int

    @property
    def epochs(self) -> float:
        return self.read / self.sequences


@dataclass(frozen=True, slots=True)
class DataUsage:
    """``sequences`` of ``context`` + 1 tokens make an epoch; the run reads ``read`` of them.

    ``unused`` of the ``tokens`` are in no sequence: those of the ``short`` shards, of at most ``context`` tokens, and
    what is left at the end of the others. ``ignored`` token files lie where only a part of the split is looked for;
    ``missing`` shards are listed in dataset.json and not there; ``miscounted``: what it counts otherwise than they are.
    ``blank``: the shards that end in one id alone, as where a copy was cut off and its size was set before.
    ``copies`` shards are the same as an earlier one, and ``leaked`` shards of val are also in train, by their size and
    their beginning. ``evident`` names the type that ids without a header are read as, if it is not the usual uint16.
    ``sources``: those of a mixture.
    """

    context: int
    sequences: int
    read: int
    tokens: int
    unused: int
    shards: int
    short: int
    ignored: int
    copies: int
    leaked: int
    missing: int = 0
    miscounted: tuple[str, ...] = ()
    blank: tuple[str, ...] = ()
    evident: str = ""
    sources: tuple[SourceUsage, ...] = ()

    @property
    def epochs(self) -> float:
        """Epochs of the data; of a mixture those of the source that is read most often."""
        if self.sources:
            return max(source.epochs for source in self.sources)
        return self.read / self.sequences if self.sequences else 0.0


def sources_of(train: PackedBinDataset, read: int) -> tuple[SourceUsage, ...]:
    """Count what ``read`` sequences of a mixture take of each source."""
    total = sum(source.weight for source in train.sources)
    counted = zip(train.sources, train.order.counts, train.order.reads(read), strict=True)
    return tuple(SourceUsage(source.name, source.weight / total, count, own) for source, count, own in counted)


def blank_ends(shards: ShardSet) -> tuple[str, ...]:
    """Return the names of the shards whose last ``BLANK`` tokens are all the same. Raise ``UserError``."""
    found = []
    for index, shard in enumerate(shards.shards):
        if shard.tokens > BLANK:
            ids = shards.read(index, shard.tokens - BLANK, BLANK)
            found += [shard.path.name] if (ids == ids[0]).all() else []
    return tuple(found)


def usage_of(train: Sequence[Shard], val: Sequence[Shard], context: int, read: int, ignored: int = 0) -> DataUsage:
    """Count the sequences of ``train`` for a run that reads ``read`` sequences of ``context`` tokens."""
    windows = [window_count(shard.tokens, context) for shard in train]
    tokens = sum(shard.tokens for shard in train)
    # Neighbours share a token: the last target of one is the first input of the next.
    used = sum(count * context + 1 for count in windows if count)
    read_from = [_same_if_equal(shard) for shard in train if shard.tokens > context]
    different = set(read_from)
    return DataUsage(
        context=context,
        sequences=sum(windows),
        read=read,
        tokens=tokens,
        unused=tokens - used,
        shards=len(train),
        short=windows.count(0),
        ignored=ignored,
        copies=len(read_from) - len(different),
        evident=", ".join(sorted({shard.dtype.name for shard in train if shard.evident} - {UINT16.name})),
        leaked=sum(_same_if_equal(shard) in different for shard in val),
    )


def _same_if_equal(shard: Shard) -> tuple[int, int]:
    return shard.bytes, shard.beginning
