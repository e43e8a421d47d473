"""Says how many documents a token file has and how long they are: by its index, or by the end-of-text id."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.document_overlap import LONGEST_DOCUMENT, Cutter
from data.index_files import document_lengths
from data.shards import ShardSet

_LEAST_TOKENS, _MOST_TOKENS, _ALL_TOKENS = 1 << 20, LONGEST_DOCUMENT, 1 << 27  # that are read of a file, of all
_BLOCK_TOKENS = 1 << 20


@dataclass(frozen=True, slots=True)
class DocumentLengths:
    """``count`` documents in the first ``tokens`` tokens of a file; ``longest`` and ``median`` in tokens.

    Empty ones do not count, nor does the last one unless the whole file was read. Without documents both are 0.
    """

    count: int
    longest: int
    median: int
    tokens: int


def lengths_of(shards: ShardSet, end: int | None, files: int) -> DocumentLengths | None:
    """Return the documents of a single file, of which ``end`` is the end-of-text id; None if nothing says them.

    At most 16 M tokens are read, less where it is one of many ``files``. Raise ``UserError`` if it cannot be read, or
    its index is damaged.
    """
    (shard,) = shards.shards
    if shard.documents is not None:
        return _described(document_lengths(shard.path), shard.tokens)
    if end is None:
        return None
    most = min(max(_ALL_TOKENS // files, _LEAST_TOKENS), _MOST_TOKENS)
    cutter, looked_at = Cutter(end), min(shard.tokens, most)
    found = []
    for start in range(0, looked_at, _BLOCK_TOKENS):
        ids = shards.read(0, start, min(_BLOCK_TOKENS, looked_at - start))
        _, starts, stops, _ = cutter.cut(ids, start + len(ids) == shard.tokens)
        found.append(stops - starts)
    return _described(np.concatenate(found), looked_at)


def _described(lengths: npt.NDArray[np.int64] | None, tokens: int) -> DocumentLengths | None:
    if lengths is None:
        return None
    lengths = lengths[lengths > 0]
    if not len(lengths):
        return DocumentLengths(0, 0, 0, tokens)
    return DocumentLengths(len(lengths), int(lengths.max()), int(np.median(lengths)), tokens)
