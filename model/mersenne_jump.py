"""Jumps ahead in the stream of torch's CPU generator, so that several threads draw parts of one stream.

The generator is MT19937 (Matsumoto and Nishimura, ACM TOMACS 8, 1998). A step of it is linear over GF(2), so n of them
are a polynomial in one: t^n modulo the characteristic polynomial (Haramoto et al., INFORMS J. Comput. 20, 2008). A
polynomial is an int here; its bit i is the coefficient of t^i.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
from torch import Tensor

Words = npt.NDArray[np.uint32]

WORDS, MIDDLE, DEGREE = 624, 397, 19937
TWIST = 0x9908B0DF
UPPER, LOWER = np.uint32(0x80000000), np.uint32(0x7FFFFFFF)
# Of ``Generator.get_state``: a header with the number of words left before the next twist, the words as 64 bits each,
# and what ``normal_`` of few values keeps for the next call.
STATE_BYTES, FIRST_WORD = 5056, 24


def can_jump(state: Tensor) -> bool:
    """Return whether ``state`` of a generator just seeded is laid out as here; another version of torch may differ."""
    return len(state) == STATE_BYTES and int(state[8:12].numpy().view(np.int32)[0]) == 1


def jump(state: Tensor, log2_steps: int) -> Tensor:
    """Return the state of the generator after 2 ** ``log2_steps`` further numbers of 32 bits.

    ``state`` is that of a generator just seeded (``can_jump``), or what this returned.
    """
    moved = state.clone()
    words = moved[FIRST_WORD : FIRST_WORD + 8 * WORDS].numpy().view(np.uint64)
    stream = _extend(words.astype(np.uint32), DEGREE + WORDS)
    windows = np.lib.stride_tricks.sliding_window_view(stream, WORDS)
    words[:] = np.bitwise_xor.reduce(windows[_exponents(_power(log2_steps))], axis=0)
    return moved


def _extend(words: Words, length: int) -> Words:
    """Return the first ``length`` words of the recurrence that begins with ``words``."""
    stream = np.empty(length, np.uint32)
    stream[:WORDS] = words
    for first in range(WORDS, length, WORDS - MIDDLE):
        last = min(first + WORDS - MIDDLE, length)
        old, count = first - WORDS, last - first
        joined = (stream[old : old + count] & UPPER) | (stream[old + 1 : old + 1 + count] & LOWER)
        twisted = (joined >> np.uint32(1)) ^ ((joined & np.uint32(1)) * np.uint32(TWIST))
        stream[first:last] = stream[old + MIDDLE : old + MIDDLE + count] ^ twisted
    return stream


@cache
def _power(log2_steps: int) -> int:
    """Return t^(2 ** ``log2_steps``) modulo the characteristic polynomial."""
    start = min(log2_steps, 14)  # 2 ** 14 is below the degree
    power = 1 << (1 << start)
    for _ in range(log2_steps - start):
        spread = int("0".join(f"{power:b}"), 2)  # a square over GF(2) has no mixed terms
        power = _reduce(spread)
    return power


def _reduce(polynomial: int) -> int:
    below = _exponents(_characteristic() ^ (1 << DEGREE)).tolist()
    while (high := polynomial >> DEGREE) > 0:
        polynomial &= (1 << DEGREE) - 1
        for exponent in below:
            polynomial ^= high << exponent
    return polynomial


@cache
def _characteristic() -> int:
    """Return the characteristic polynomial: appendix A of the paper, with w - r = 1."""
    powers = [1]  # of t^(n - 1) + t^(m - 1)
    for _ in range(31):
        powers.append(powers[-1] << WORDS - 1 ^ powers[-1] << MIDDLE - 1)
    inner = powers[31]
    for bit in range(31):
        if TWIST >> bit & 1:
            inner ^= powers[30 - bit]
    product = inner << WORDS ^ inner << MIDDLE
    return product ^ (TWIST >> 31 & 1)


def _exponents(polynomial: int) -> npt.NDArray[np.int64]:
    bits = np.frombuffer(polynomial.to_bytes(DEGREE // 8 + 1, "little"), np.uint8)
    return np.flatnonzero(np.unpackbits(bits, bitorder="little"))
