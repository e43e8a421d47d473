"""Lets numpy load under a limit on the address space (``ulimit -v``), or says in one line that it cannot.

Its BLAS reserves memory for every core when it is loaded, and ends the process where that is not to be had.
"""

from __future__ import annotations

import os
import resource
import sys

from profiles.errors import UserError

NUMPY_NEEDS = 160 << 20  # bytes, for a command with one BLAS thread; 130 MB were enough for each that was tried


class _NoRoomForNumpy:
    """A finder that refuses to import numpy. Commands that do without it are not held up."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "numpy":
            raise UserError(
                f"ulimit -v: {self._limit >> 20} MiB of address space are too few, to read data takes"
                f" {NUMPY_NEEDS >> 20} and a run more; raise the limit with: ulimit -v unlimited"
            )


def prepare_for_limit() -> None:
    """Do nothing where the address space is not limited.

    One thread is enough for numpy, which multiplies no matrices here. What this process starts inherits that; torch
    takes its number of threads from elsewhere.
    """
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if limit < NUMPY_NEEDS:
        sys.meta_path.insert(0, _NoRoomForNumpy(limit))
