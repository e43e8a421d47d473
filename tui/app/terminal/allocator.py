"""Configures the C library's allocator to return freed memory to the operating system.

The app stays open for days, and reading a long run once must not raise its memory for good. By default glibc keeps one
heap per thread and cannot shrink a heap below its topmost used block. With a single heap, and large blocks mapped on
their own, freed memory is returned; the cost is not noticeable. Other C libraries are left unchanged.
"""

from __future__ import annotations

import ctypes

# <malloc.h>
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_LARGE = 128 << 10  # bytes; glibc starts with this value and raises it with use, unless it was set


def return_freed_memory() -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, value in ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, _LARGE), (_TRIM_THRESHOLD, _LARGE)):
            mallopt(option, value)
