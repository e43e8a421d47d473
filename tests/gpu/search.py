"""Finds the largest size that fits in few trials, because each takes half a minute."""

from __future__ import annotations

from collections.abc import Callable


def longest(
    fits: Callable[[int], bool | None], start: int, limit: int, grain: int = 1
) -> tuple[int | None, int | None]:
    """Return the largest size found to fit and the smallest found not to; None for what was not found.

    Doubles or halves from ``start`` until it has one of each, then bisects until they are within an eighth. ``fits``
    returns None when time is up. Sizes are multiples of ``grain`` up to ``limit``.
    """
    good: int | None = None
    bad: int | None = None
    size: int | None = start
    while size is not None:
        answer = fits(size)
        if answer is None:
            break
        good, bad = (size, bad) if answer else (good, size)
        size = _next(good, bad, limit, grain)
    return good, bad


def _next(good: int | None, bad: int | None, limit: int, grain: int) -> int | None:
    """Return the size to try next, or None at the end of the search."""
    if good is None:
        half = (bad or 0) // 2 // grain * grain
        return half or None
    if bad is None:
        return min(2 * good, limit) if good < limit else None
    middle = (good + bad) // 2 // grain * grain
    return middle if bad - good > good // 8 and good < middle < bad else None
