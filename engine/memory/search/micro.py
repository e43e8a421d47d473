"""Finds by bisection the largest micro-batch that fits: memory grows with the micro-batch."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace

from profiles.spec import RunSpec

MAX_MICRO = 4096


def micro_divisors(spec: RunSpec) -> list[int]:
    """Return every micro that divides a rank's sequences of a step, ascending."""
    sequences = spec.batch.sequences // spec.ranks
    return [n for n in range(1, min(sequences, MAX_MICRO) + 1) if sequences % n == 0]


def largest(micros: Sequence[int], fits: Callable[[int], bool]) -> int | None:
    """Return the largest of the ascending ``micros`` that fits, or None.

    The last one is tried by itself: a step of one micro-batch keeps no gradients beside it, so it can need less than
    the one before.
    """
    if not micros or fits(micros[-1]):
        return micros[-1] if micros else None
    first_over = bisect_left(micros, True, hi=len(micros) - 1, key=lambda n: not fits(n))
    return micros[first_over - 1] if first_over else None


def with_micro(spec: RunSpec, micro: int) -> RunSpec:
    """Return ``spec`` with ``micro``, which is one of ``micro_divisors``; nothing else is checked."""
    return replace(spec, batch=replace(spec.batch, micro=micro), auto_micro=False)
