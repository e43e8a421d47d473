"""Has the C library give memory back: the app stands open for days, and what a look at a long run took must not stay.

glibc keeps a heap for each thread that reads, and what was freed below anything still in use. One heap, and blocks of
their own for whatever is large, cost nothing that a person notices. Other C libraries do as they do.
"""

from __future__ import annotations

import ctypes

# <malloc.h>
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_LARGE = 128 << 10  # bytes; glibc begins with this and raises it with use, unless it was set


def give_back() -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, _LARGE), (_TRIM_THRESHOLD, _LARGE)):
            mallopt(option, value)
