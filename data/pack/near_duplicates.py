"""Finds documents that are nearly the same as an earlier one, by MinHash of their tokens.

A document is the set of its runs of five tokens. Two are alike by how much their sets have in common (Jaccard). Of each
set 256 minima are taken (MinHash, Broder 1997), in bands of several: documents that agree in all minima of a band are
near-duplicates. With ``b`` bands of ``r``, documents that are alike by ``s`` are found with the probability
1 - (1 - s^r)^b, which rises steeply around (1 / b)^(1 / r); ``r`` is chosen so that this is near what was asked for.

What is kept of a document are 16 bytes a band, in a table on disk. The order in which it is filled does not matter: a
pack that goes on, or adds to data that is there, fills it from the shards.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data.pack.dedup import Mask, SeenDocuments
from data.pack.encoder import Counts, Ids
from data.pack.split_rule import Digests
from data.shard_file import HEADER_BYTES
from profiles.errors import UserError
from profiles.install_command import install_extra

RUN = 5  # tokens
COUNTED = 1 << 20  # tokens of a document; what is behind them does not count
_MINIMA = 256  # of each document
_SEED = 20240601
_AT_ONCE = 1 << 20  # tokens
_DOCUMENTS = 1024  # looked up at once, so that few pages of the table are in memory
_READ = 1 << 22  # tokens of a shard
_PRIME, _OTHER = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)


def check_installed() -> None:
    """Raise ``UserError`` where the library that takes the minima is not installed."""
    try:
        import rensa  # noqa: F401
    except ImportError:
        raise UserError(f"--near-duplicates: needs rensa: {install_extra('neardup')}") from None


def bands_for(similarity: float) -> tuple[int, int]:
    """Return the number of bands and the minima of each, for documents that are alike by ``similarity``."""
    rows = min(range(1, _MINIMA + 1), key=lambda r: abs((1 / (_MINIMA // r)) ** (1 / r) - similarity))
    return _MINIMA // rows, rows


def bands_of(ids: Ids, tokens: Counts, similarity: float) -> Digests:
    """Return the hashes of the bands of each document: (documents * bands, 2).

    ``ids`` are those of all documents, one after another, ``tokens`` how many each has.
    """
    import rensa

    bands, rows = bands_for(similarity)
    found = [np.empty((0, 2), np.uint64)]
    for some, counts in _groups(ids, tokens):
        runs, offsets = _runs(some, counts)
        minima = rensa.RMinHash.digest_matrix_from_flat_token_hashes(runs, offsets, _MINIMA, _SEED).to_rows()
        table = np.array(minima, np.uint64)[:, : bands * rows].reshape(-1, bands, rows)
        words = np.arange(bands, dtype=np.uint64) * _OTHER, np.arange(bands, dtype=np.uint64) * _PRIME
        hashes = [_mixed(table, start, factor) for start, factor in zip(words, (_PRIME, _OTHER), strict=True)]
        found.append(np.stack(hashes, axis=-1).reshape(-1, 2))
    return np.concatenate(found)


class NearDuplicates:
    """The bands of all documents that were kept. The file is scratch: it is deleted by ``close``."""

    def __init__(self, path: Path, similarity: float) -> None:
        """Make an empty table. Raise ``OSError`` where the disk is full."""
        self._similarity = similarity
        self._bands = bands_for(similarity)[0]
        self._seen = SeenDocuments(path)

    def add(self, bands: Digests) -> Mask:
        """Add documents and return which are like none before: (documents,). Only those are compared with later ones.

        ``bands`` is what ``bands_of`` returned. Raise ``OSError`` where the disk is full.
        """
        step = _DOCUMENTS * self._bands
        parts = [self._add(bands[start : start + step]) for start in range(0, len(bands), step)]
        return np.concatenate([np.empty(0, np.bool_), *parts])

    def _add(self, bands: Digests) -> Mask:
        there = self._seen.has(bands).reshape(-1, self._bands)
        new: Mask = np.logical_not(np.any(there, axis=1))
        words = bands[:, 0].reshape(-1, self._bands)
        values, counts = np.unique(words[new], return_counts=True)
        shared = np.isin(words, values[counts > 1]).any(axis=1)
        held: set[int] = set()
        for number in np.flatnonzero(new & shared):  # may be like another one of these
            own = words[number].tolist()
            new[number] = held.isdisjoint(own)
            if new[number]:
                held.update(own)
        self._seen.add(bands[np.repeat(new, self._bands)])
        return new

    def add_shards(self, folder: Path, dtype: np.dtype[Any], eot_id: int) -> None:
        """Add the documents in the shards of a split that ``data pack`` wrote. Raise ``OSError``."""
        for path in sorted(folder.glob("*.bin")):
            for ids, tokens in _documents(path, dtype, eot_id):
                self._seen.add(bands_of(ids, tokens, self._similarity))

    def close(self) -> None:
        self._seen.close()


def _groups(ids: Ids, tokens: Counts) -> Iterator[tuple[Ids, Counts]]:
    """Yield the documents, as many as have ``_AT_ONCE`` tokens, and of each the first ``COUNTED``."""
    ends = np.cumsum(tokens)
    first = 0
    while first < len(tokens):
        start = int(ends[first] - tokens[first])
        last = max(first + 1, int(np.searchsorted(ends, start + _AT_ONCE, side="right")))
        if last == first + 1:
            count = min(int(tokens[first]), COUNTED)
            yield ids[start : start + count], np.array([count], np.int64)
        else:
            yield ids[start : int(ends[last - 1])], tokens[first:last]
        first = last


def _runs(ids: Ids, tokens: Counts) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Return the hashes of all runs of ``RUN`` tokens, and where those of each document begin and the last end.

    A shorter document is one run.
    """
    ends = np.cumsum(tokens)
    place = np.arange(len(ids))
    end = np.repeat(ends, tokens)
    hashes = np.zeros(len(ids), np.uint64)
    padded = np.concatenate([ids, np.zeros(RUN, ids.dtype)]).astype(np.uint64) + np.uint64(1)
    for k in range(RUN):
        hashes = (hashes ^ np.where(place + k < end, padded[k : k + len(ids)], np.uint64(0))) * _PRIME
        hashes ^= hashes >> np.uint64(29)
    kept = np.minimum(np.maximum(tokens - RUN + 1, 1), tokens)
    inside = place < np.repeat(ends - tokens + kept, tokens)
    return hashes[inside], np.concatenate([[0], np.cumsum(kept)]).astype(np.uint64)


def _mixed(table: npt.NDArray[np.uint64], start: npt.NDArray[np.uint64], factor: np.uint64) -> npt.NDArray[np.uint64]:
    """Return a hash of each band: (documents, bands)."""
    hashes = np.broadcast_to(start, table.shape[:2])
    for row in range(table.shape[2]):
        hashes = (hashes ^ table[:, :, row]) * factor
        hashes ^= hashes >> np.uint64(31)
    return hashes


def _documents(path: Path, dtype: np.dtype[Any], eot_id: int) -> Iterator[tuple[Ids, Counts]]:
    """Yield the documents of a shard without their ends, several at once."""
    rest: Ids = np.empty(0, dtype)
    with path.open("rb") as file:
        file.seek(HEADER_BYTES)
        while len(block := np.fromfile(file, dtype, _READ)):
            rest = np.concatenate([rest, block])
            ends = np.flatnonzero(rest == eot_id)
            if len(ends):
                whole = rest[: ends[-1] + 1]
                yield whole[whole != eot_id], np.diff(ends, prepend=-1) - 1
                rest = rest[ends[-1] + 1 :]
