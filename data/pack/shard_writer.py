"""Appends ids to the shards of one split, and starts a new shard where one is full."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from data.pack.encoder import Counts, Ids
from data.shard_file import HEADER_BYTES, shard_header


@dataclass
class ShardState:
    """What of a split is on disk: ``closed`` shards by name with their hash, then ``open`` tokens of the next one."""

    open: int = 0
    tokens: int = 0
    documents: int = 0
    bytes: int = 0
    closed: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class ShardWriter:
    """The shards of one split. Those of which ``state`` does not know are removed or cut."""

    def __init__(
        self, folder: Path, prefix: str, dtype: np.dtype[Any], limit: int, state: ShardState, first: int
    ) -> None:
        """``first`` is the number of the first shard, ``limit`` the tokens of one. Raise ``OSError``.

        Only a document of more tokens than ``limit`` makes a longer shard.
        """
        self.state = state
        self._first = first
        self._folder, self._prefix = folder, prefix
        self._dtype, self._limit = dtype, limit
        self._file: FileIO | None = None
        folder.mkdir(parents=True, exist_ok=True)
        keep = {*state.closed, *([self._name] if state.open else [])}
        for path in folder.iterdir():
            if path.name not in keep:
                path.unlink()
        if state.open:
            self._file = self._path.open("r+b", buffering=0)
            self._file.truncate(HEADER_BYTES + state.open * dtype.itemsize)
            self._file.seek(0, os.SEEK_END)

    def write(self, ids: Ids, tokens: Counts, size: int) -> None:
        """Append whole documents: their ids, the tokens of each and their ``size`` in bytes. Raise ``OSError``."""
        self.state.documents += len(tokens)
        self.state.bytes += size
        ends = np.cumsum(tokens)
        start = first = 0
        while first < len(tokens):
            room = self._limit - self.state.open
            last = int(np.searchsorted(ends, start + room, side="right"))
            if last <= first:  # before it, where a longer document than fits has made no room
                if self.state.open:
                    self.close()
                    continue
                last = first + 1  # a document of more tokens than a shard has its own
            end = int(ends[last - 1])
            self._append(ids[start:end])
            start, first = end, last

    def _append(self, ids: Ids) -> None:
        if self._file is None:
            self._file = self._path.open("wb", buffering=0)
            write_all(self._file, memoryview(bytes(HEADER_BYTES)))
        write_all(self._file, ids.data.cast("B"))
        self.state.open += len(ids)
        self.state.tokens += len(ids)

    def sync(self) -> None:
        """Make what was written durable. Raise ``OSError``."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Finish the open shard, if there is one. Raise ``OSError``."""
        if self._file is None:
            return
        self._file.seek(0)
        write_all(self._file, memoryview(shard_header(self._dtype, self.state.open)))
        self.sync()
        self._file.close()
        self._file = None
        with self._path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        self.state.closed[self._name] = sha256
        self.state.open = 0

    @property
    def _name(self) -> str:
        return f"{self._prefix}-{self._first + len(self.state.closed):03d}.bin"

    @property
    def _path(self) -> Path:
        return self._folder / self._name


def write_all(file: FileIO, data: memoryview) -> None:
    """Write all of ``data``. The file has no buffer, which could not be written later, on a full disk."""
    while data:
        data = data[file.write(data) :]
