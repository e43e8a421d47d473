"""Decides whether a document is for train or val, from a hash of its content alone.

So packing again, in another order or with more documents, never moves a document from one split to the other.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

TRAIN, VAL = SPLITS = ("train", "val")
DIGEST_BYTES = 16

VAL_BYTES = 1_000_000  # of text, enough windows for a stable mean
_LEAST, _MOST = 0.005, 0.05  # of the documents, for validation

Digests = npt.NDArray[np.uint64]
"""(documents, 2): two 64-bit words of each document's hash."""


def digest_of(text: bytes) -> bytes:
    """Return the hash that identifies a document."""
    return hashlib.blake2b(text, digest_size=DIGEST_BYTES).digest()


def as_digests(joined: bytes | memoryview) -> Digests:
    """Return the digests in ``joined``, one after another, as words."""
    return np.frombuffer(joined, "<u8").reshape(-1, 2)


def default_fraction(size: int) -> float:
    """Return the fraction of documents for validation of ``size`` bytes of text: about ``VAL_BYTES``, 0.5% to 5%."""
    return min(max(VAL_BYTES / max(size, 1), _LEAST), _MOST)


def for_validation(digests: Digests, fraction: float) -> npt.NDArray[np.bool_]:
    """Return which documents are for validation: (documents,). A larger fraction keeps those of a smaller one."""
    result: npt.NDArray[Any] = digests[:, 1] < np.uint64(min(int(fraction * 2**64), 2**64 - 1))
    return result
