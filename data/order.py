"""Computes the order of training sequences, a pure function of seed, epoch and position.

A window is a slice of ``context`` tokens of one shard (``context + 1`` are read, so that every token has a target).
The windows of a shard do not overlap, never span two shards, and are numbered shard by shard. An epoch visits each
window once, in an order that depends only on the seed and the number of the epoch.

The order must never change between versions: a resumed run would silently read other data. Tests pin its values.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate

_MASK_64 = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
# Four rounds suffice for large halves (Luby and Rackoff, 1988); two more improve epochs of only a few windows.
_ROUNDS = 6


def permute(seed: int, epoch: int, i: int, n: int) -> int:
    """Return the window at position ``i`` of an epoch of ``n`` windows: a bijection on ``[0, n)`` per (seed, epoch).

    A balanced Feistel network over the smallest power of four of at least ``n``, applied again until the result is
    below ``n`` (cycle walking: Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002): at worst four rounds
    of it on average. Raise ``IndexError`` if ``i`` is outside ``[0, n)``.
    """
    if not 0 <= i < n:
        raise IndexError(f"position {i} of an epoch of {n}")
    half = ((n - 1).bit_length() + 1) // 2
    mask = (1 << half) - 1
    keys = _round_keys(seed, epoch)
    while True:
        left, right = i >> half, i & mask
        for key in keys:
            left, right = right, left ^ (_mix(right + key) & mask)
        i = left << half | right
        if i < n:
            return i


def window_count(tokens: int, context: int) -> int:
    """Return the number of windows in a shard; the last token of a window needs the next token as target."""
    return max(tokens - 1, 0) // context


def window_ends(tokens: Iterable[int], context: int) -> tuple[int, ...]:
    """Return, for shards of so many ``tokens``, the number of windows up to and including each shard."""
    return tuple(accumulate(window_count(count, context) for count in tokens))


def locate_sequence(seed: int, epoch: int, i: int, ends: Sequence[int], context: int) -> tuple[int, int]:
    """Return (index of the shard, offset in tokens) of the ``i``-th sequence of an epoch.

    ``ends[s]`` is the number of windows in the shards up to and including ``s``; the last one must be above 0.
    """
    return locate_window(permute(seed, epoch, i, ends[-1]), ends, context)


def locate_window(window: int, ends: Sequence[int], context: int) -> tuple[int, int]:
    """Return (index of the shard, offset in tokens) of window ``window``; ``ends`` as in ``locate_sequence``."""
    shard = bisect_right(ends, window)
    before = ends[shard - 1] if shard else 0
    return shard, (window - before) * context


@lru_cache(maxsize=8)
def _round_keys(seed: int, epoch: int) -> tuple[int, ...]:
    state = _mix((seed & _MASK_64) + _GOLDEN)
    state = _mix((state ^ (epoch & _MASK_64)) + _GOLDEN)
    return tuple(_mix(state + r * _GOLDEN) for r in range(1, _ROUNDS + 1))


def _mix(x: int) -> int:
    """The finalizer of splitmix64 (Steele, Lea and Flood, 2014)."""
    x &= _MASK_64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _MASK_64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _MASK_64
    return x ^ (x >> 31)
