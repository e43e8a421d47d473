"""Finds documents that were seen before: a hash table in a file, 16 bytes a document.

The table is open addressing with linear probing, at most half full. It is looked up and filled in batches with numpy.
Its pages belong to the page cache, not to the process: they are released after each batch.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data.pack.split_rule import DIGEST_BYTES, Digests

_FIRST_SLOTS = 1 << 16
_KEPT_RESIDENT = 64 << 20  # bytes of a table whose pages are not released
_ZEROS = bytes(1 << 20)

Mask = npt.NDArray[np.bool_]


class SeenDocuments:
    """The digests of all documents so far. The file is scratch: it is written again, and deleted by ``close``."""

    def __init__(self, path: Path) -> None:
        """Make an empty table. Raise ``OSError`` where the disk is full."""
        self._path = path
        self._count = 0
        self._open(_FIRST_SLOTS)

    def add(self, digests: Digests) -> Mask:
        """Add documents and return which of them are new: (documents,). Of equal ones the first is.

        Raise ``OSError`` where the disk is full.
        """
        digests = _without_zero(digests)
        while 2 * (self._count + len(digests)) > len(self._table):
            self._grow()
        first = np.zeros(len(digests), np.bool_)
        first[np.unique(digests.view("V16").ravel(), return_index=True)[1]] = True
        new = np.zeros(len(digests), np.bool_)
        new[first] = self._insert(digests[first])
        self._count += int(new.sum())
        self._release()
        return new

    def has(self, digests: Digests) -> Mask:
        """Return which documents were added: (documents,)."""
        digests = _without_zero(digests)
        table, mask = self._table, np.uint64(len(self._table) - 1)
        found = np.zeros(len(digests), np.bool_)
        pending: npt.NDArray[Any] = np.arange(len(digests))
        slots = digests[:, 0] & mask
        while len(pending):
            there = table[slots]
            same = (there == digests[pending]).all(axis=1)
            found[pending[same]] = True
            rest = ~same & (there[:, 0] != 0)
            pending, slots = pending[rest], (slots[rest] + np.uint64(1)) & mask
        self._release()
        return found

    def close(self) -> None:
        del self._table
        self._map.close()
        self._path.unlink(missing_ok=True)

    def _release(self) -> None:
        if len(self._table) * DIGEST_BYTES > _KEPT_RESIDENT:
            self._map.madvise(mmap.MADV_DONTNEED)

    def _insert(self, digests: Digests) -> Mask:
        """Insert distinct digests; return which were not there."""
        table, mask = self._table, np.uint64(len(self._table) - 1)
        new = np.zeros(len(digests), np.bool_)
        pending: npt.NDArray[Any] = np.arange(len(digests))
        slots = digests[:, 0] & mask
        while len(pending):
            there = table[slots]
            empty = there[:, 0] == 0
            # Of several that want one empty slot the first takes it; the others look on from there.
            takers = np.zeros(len(pending), np.bool_)
            takers[np.flatnonzero(empty)[np.unique(slots[empty], return_index=True)[1]]] = True
            table[slots[takers]] = digests[pending[takers]]
            new[pending[takers]] = True
            rest = ~takers & (there != digests[pending]).any(axis=1)
            pending, slots = pending[rest], (slots[rest] + np.uint64(1)) & mask
        return new

    def _open(self, slots: int) -> None:
        path = self._path.with_suffix(".growing")
        with path.open("w+b") as file:
            # Written, not only sized: a full disk is then an error here, and not a SIGBUS at some later access.
            for _ in range(-(-slots * DIGEST_BYTES // len(_ZEROS))):
                file.write(_ZEROS[: slots * DIGEST_BYTES])
            file.flush()
            self._map = mmap.mmap(file.fileno(), slots * DIGEST_BYTES)
        os.rename(path, self._path)
        self._table: Digests = np.frombuffer(self._map, "<u8").reshape(-1, 2)

    def _grow(self) -> None:
        old, old_map = self._table, self._map
        self._open(2 * len(old))
        for start in range(0, len(old), _FIRST_SLOTS):
            part = old[start : start + _FIRST_SLOTS]
            self._insert(part[part[:, 0] != 0])
        del old, part
        old_map.close()


def _without_zero(digests: Digests) -> Digests:
    """Return a copy in which no first word is 0, which marks an empty slot."""
    digests = np.ascontiguousarray(digests).copy()
    digests[digests[:, 0] == 0, 0] = 1
    return digests
