"""Says which source each sequence of a mixture is from: a pure function of the weights and its number.

The sequences are divided like the pixels of a line among rows (Bresenham, 1965): of the first ``k``, a source with
the fraction ``p`` has ``k * p``, rounded. For more than two sources the list is halved, each half gets its part of the
``k`` in that way and divides it again. So every stretch of sequences, such as a step, has nearly the fractions of the
weights, and the source of any sequence is known without those before it.

The division must never change between versions: a resumed run would silently read other data. Tests pin its values.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import lcm


def shares(weights: Sequence[float]) -> tuple[int, ...]:
    """Return integers in the proportion of the ``weights``, taken as the decimals that were written."""
    exact = [Fraction(repr(weight)) for weight in weights]
    scale = lcm(*(weight.denominator for weight in exact))
    return tuple(int(weight * scale) for weight in exact)


def divide(k: int, shares: Sequence[int]) -> tuple[int, ...]:
    """Return how many of the first ``k`` sequences are from each source; costs a few operations a source.

    Each count grows by at most 1 from ``k`` to ``k + 1``, and is at most 1 + log2(sources) / 2 from its exact fraction.
    """
    if len(shares) == 1:
        return (k,)
    half = len(shares) // 2
    left, total = sum(shares[:half]), sum(shares)
    first = (2 * k * left + total) // (2 * total)  # rounded to nearest
    return divide(first, shares[:half]) + divide(k - first, shares[half:])
