"""Finds documents of val that are also in train, in ids that are given block by block.

A document is what lies between two end-of-text ids, or between one and the end of a shard; whether that id ends or
begins a document makes no difference. The documents of val are kept as 24 bytes each. Of train only those are hashed
that have the length and three ids of one of them, so it is read as fast as its end-of-text ids are found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

MOST_VAL_DOCUMENTS = 1 << 22  # 100 MB
LONGEST_DOCUMENT = 1 << 24  # tokens
_MIX = np.uint64(0x9E3779B97F4A7C15)

Cut = tuple[npt.NDArray[Any], npt.NDArray[np.int64], npt.NDArray[np.int64], int]


class Cutter:
    """Cuts the ids of one shard into documents. ``ends``: the end-of-text ids so far; ``too_long``: not given out."""

    def __init__(self, end: int) -> None:
        self.ends = 0
        self.too_long = 0
        self._end = end
        self._rest: list[npt.NDArray[Any]] = []  # of a document that goes on
        self._rest_tokens = 0
        self._skips = False
        self._token = 0

    def cut(self, ids: npt.NDArray[Any], last: bool) -> Cut:
        """Return ids, the first and the end of each complete document in them, and the token at which they begin.

        ``ids``, (tokens,), follow those of the call before; they may be overwritten later. With the ``last`` ones of a
        shard what is left is a document.
        """
        ends = np.flatnonzero(ids == self._end)
        self.ends += len(ends)
        begin = self._token - self._rest_tokens
        self._token += len(ids)
        if not len(ends) and not last:
            self._keep(ids)
            return ids, ends[:0], ends[:0], begin
        if self._rest:
            ids, ends = np.concatenate([*self._rest, ids]), ends + self._rest_tokens
        stops = np.append(ends, len(ids)) if last else ends
        starts = np.append(0, ends + 1)[: len(stops)]
        if self._skips and len(stops):  # what is left of a document that is too long
            starts, stops = starts[1:], stops[1:]
        self._rest, self._rest_tokens, self._skips = [], 0, False
        if len(ends) and not last:
            self._keep(ids[ends[-1] + 1 :])
        some = stops > starts
        return ids, starts[some], stops[some], begin

    def _keep(self, ids: npt.NDArray[Any]) -> None:
        if self._skips or not len(ids):
            return
        if self._rest_tokens + len(ids) > LONGEST_DOCUMENT:
            self._rest, self._rest_tokens, self._skips = [], 0, True
            self.too_long += 1
            return
        self._rest.append(ids.copy())
        self._rest_tokens += len(ids)


class Overlap:
    """The documents of val, and which of them were found in train. Add all of val before looking for any."""

    def __init__(self) -> None:
        self.compared = 0  # documents of val
        self.left_out = 0  # beyond the number that is kept
        self.looked_at = 0  # documents of train
        self.first: tuple[int, int, int, int] | None = None  # shard and token in val, shard and token in train
        self._added: list[npt.NDArray[np.uint64]] = []
        self._keys = self._hashes = np.empty(0, np.uint64)
        self._places = np.empty((0, 2), np.uint64)
        self._found = np.empty(0, bool)

    @property
    def found(self) -> int:
        """Documents of val that are also in train."""
        return int(np.count_nonzero(self._found))

    def add_val(self, shard: int, cut: Cut) -> None:
        ids, starts, stops, begin = cut
        free = MOST_VAL_DOCUMENTS - self.compared
        self.left_out += max(len(starts) - free, 0)
        starts, stops = starts[:free], stops[:free]
        self.compared += len(starts)
        hashes = np.fromiter(_hashes(ids, starts, stops), np.uint64, len(starts))
        places = np.full(len(starts), shard, np.uint64), (starts + begin).astype(np.uint64)
        self._added.append(np.stack([_keys(ids, starts, stops), hashes, *places], axis=1))

    def freeze(self) -> None:
        """Prepare for ``look_for``."""
        added = np.concatenate(self._added) if self._added else np.empty((0, 4), np.uint64)
        added = added[np.argsort(added[:, 1], kind="stable")]
        self._added = []
        self._keys, self._hashes, self._places = np.unique(added[:, 0]), added[:, 1].copy(), added[:, 2:].copy()
        self._found = np.zeros(len(added), bool)

    def look_for(self, shard: int, cut: Cut) -> None:
        """Look for documents of train among those of val."""
        ids, starts, stops, begin = cut
        self.looked_at += len(starts)
        if not len(starts) or not len(self._keys):
            return
        keys = _keys(ids, starts, stops)
        alike = self._keys[np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)] == keys
        starts, stops = starts[alike], stops[alike]
        for start, hash in zip(starts.tolist(), _hashes(ids, starts, stops), strict=True):
            value = np.uint64(hash)
            low, high = (int(np.searchsorted(self._hashes, value, side)) for side in ("left", "right"))
            if low < high:
                self._found[low:high] = True
                val_shard, val_token = self._places[low].tolist()
                self.first = self.first or (val_shard, val_token, shard, begin + start)


def _keys(ids: npt.NDArray[Any], starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """Return a number for each document that is the same for equal ones, of its length and three of its ids."""
    key = (stops - starts).astype(np.uint64)
    for place in (starts, (starts + stops) // 2, stops - 1):
        key = key * _MIX ^ ids[place].astype(np.uint64)
    return key


def _hashes(ids: npt.NDArray[Any], starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]) -> Iterator[int]:
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        yield int.from_bytes(hashlib.blake2b(ids[start:stop].data, digest_size=8).digest(), "little")
