"""Checks that the ids of shards are within the vocabulary of the model: all of them, or as many as time allows.

A run that meets such an id later ends there, and again after each resume. Ids are read at 3 GB/s from the page cache
and as fast as the disk otherwise, so a launch looks at as much as it can in a second a split.
"""

from __future__ import annotations

import random
import time
from bisect import bisect_right
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from data.shard_file import Shard
from data.shards import ShardSet
from profiles.errors import UserError

_BLOCK_TOKENS = 1 << 19
_MAX_BLOCKS = 1 << 14


def check_ids(shards: ShardSet, vocab_size: int, seconds: float) -> int:
    """Read ids for at most about ``seconds`` and return how many tokens are known to be within the vocabulary.

    Blocks of half a million tokens are read in a random order, so that a part of a large split is a sample of all of
    it. The order is the same each time. Raise ``UserError`` for the first id outside.
    """
    deadline = time.monotonic() + seconds
    needed = [may_be_outside(shard.dtype, vocab_size) for shard in shards.shards]
    known = sum(shard.tokens for shard, needs in zip(shards.shards, needed, strict=True) if not needs)
    ends = list(
        accumulate(
            -(-shard.tokens // _BLOCK_TOKENS) if needs else 0
            for shard, needs in zip(shards.shards, needed, strict=True)
        )
    )
    blocks = ends[-1] if ends else 0
    for block in random.Random(0).sample(range(blocks), min(blocks, _MAX_BLOCKS)):
        index = bisect_right(ends, block)
        shard = shards.shards[index]
        start = (block - (ends[index - 1] if index else 0)) * _BLOCK_TOKENS
        ids = shards.read(index, start, min(_BLOCK_TOKENS, shard.tokens - start))
        check_block(shard, start, ids, vocab_size)
        known += len(ids)
        if time.monotonic() > deadline:
            break
    return known


def may_be_outside(dtype: np.dtype[Any], vocab_size: int) -> bool:
    """Return whether an integer of this type can be no id of the vocabulary; 16-bit ids may all be."""
    span = np.iinfo(dtype)
    return bool(span.min < 0 or span.max >= vocab_size)


def check_block(shard: Shard, start: int, ids: npt.NDArray[Any], vocab_size: int) -> None:
    """Raise ``UserError`` for the first of the ``ids`` from token ``start`` on that is outside the vocabulary."""
    if ids.size and not (ids.min() >= 0 and ids.max() < vocab_size):
        place = int(np.argmax((ids < 0) | (ids >= vocab_size)))
        raise outside_vocabulary(shard, start + place, int(ids[place]), vocab_size)


def outside_vocabulary(shard: Shard, token: int, id: int, vocab_size: int) -> UserError:
    """Return the error for an id that the model does not have; ``token`` is its position in the shard."""
    if id < 0:
        return UserError(f"{shard.path}: token {token} is {id}, which is no token id: pack it again without it")
    return UserError(
        f"{shard.path}: token {token} is id {id}, outside the model's vocabulary of {vocab_size}: "
        f"use a model with a vocabulary of at least {id + 1}, or shards of the model's tokenizer"
    )
