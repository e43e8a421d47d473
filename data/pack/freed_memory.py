"""Has the C library give freed memory back to the system, as far as it can: only glibc keeps so much."""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD = -3  # of mallopt, as glibc's malloc.h has it
# Bytes of a block that is given back when it is freed. Those of a batch of usual size are below: to map them again for
# each batch takes a tenth of the time of a pack.
_MAPPED_ALONE = 4 << 20


def return_large_blocks() -> None:
    """Have each large block given back when it is freed.

    By default glibc keeps blocks of up to 32 MiB, in each thread, after it has seen one: that grew to 400 MB.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_ALONE)


def return_memory() -> None:
    """Give back what is free now, in the heaps of all threads."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
