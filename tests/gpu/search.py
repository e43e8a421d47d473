"""The largest size that still fits, in few trials: each costs half a minute."""

from __future__ import annotations

from collections.abc import Callable


def longest(
    fits: Callable[[int], bool | None], start: int, limit: int, grain: int = 1
) -> tuple[int | None, int | None]:
    """The largest size found to fit and the smallest found not to; None for what was not found.

    From ``start`` by doubling or halving to a size on either side, then by bisection until the two are within an
    eighth. ``fits`` answers None where there is no time left. Sizes are multiples of ``grain`` up to ``limit``.
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
    """The size to try next, None where nothing more is to be learned."""
    if good is None:
        half = (bad or 0) // 2 // grain * grain
        return half or None
    if bad is None:
        return min(2 * good, limit) if good < limit else None
    middle = (good + bad) // 2 // grain * grain
    return middle if bad - good > good // 8 and good < middle < bad else None
