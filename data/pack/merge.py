"""Merges encoded batches in order: drops duplicates, splits train from val, writes shards and lists."""

from __future__ import annotations

import json
import os
from io import FileIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data.pack.batches import FileEnd
from data.pack.dedup import SeenDocuments
from data.pack.encode_batch import Encoded
from data.pack.journal import Progress
from data.pack.near_duplicates import NearDuplicates
from data.pack.pipeline import Position
from data.pack.request import Request
from data.pack.shard_writer import ShardWriter, write_all
from data.pack.split_rule import DIGEST_BYTES, SPLITS, as_digests, for_validation
from data.pack.target import DIGESTS, SOURCES, Existing
from data.pack.vocabulary import Vocabulary

_DROPPED = len(SPLITS)  # the place of a duplicate, behind those of the splits
_LOADED_AT_ONCE = DIGEST_BYTES << 16


class Merger:
    """Writes a data set into ``folder``, and goes on from where ``progress`` was."""

    def __init__(
        self, request: Request, folder: Path, vocabulary: Vocabulary, progress: Progress, existing: Existing | None
    ) -> None:
        """Cut the files in ``folder`` to what ``progress`` knows of. Raise ``OSError``."""
        self.progress = progress
        self._request = request
        self._shards = [
            ShardWriter(
                *(
                    folder / split,
                    f"{request.phase}-{split}",
                    vocabulary.dtype,
                    request.shard_tokens,
                    progress.shards[split],
                ),
                first=existing.shards[split] if existing else 0,
            )
            for split in SPLITS
        ]
        held = (existing.digests, existing.sources) if existing else (0, 0)
        self._digests = _open_at(folder / DIGESTS, held[0] + progress.documents * DIGEST_BYTES)
        self._sources = _open_at(folder / SOURCES, held[1] + progress.sources)
        self._seen = SeenDocuments(folder.parent / "seen")
        with (folder / DIGESTS).open("rb") as file:
            while part := file.read(_LOADED_AT_ONCE):
                self._seen.add(as_digests(part))
        self._near: NearDuplicates | None = None
        if request.near_duplicates is not None:
            self._near = NearDuplicates(folder.parent / "near", request.near_duplicates)
            for phase in (request.target, folder) if existing else (folder,):
                for split in SPLITS:
                    self._near.add_shards(phase / split, vocabulary.dtype, vocabulary.eot_id)

    def merge(self, position: Position, batch: Encoded) -> None:
        """Add a batch, the next in order; ``position`` is the one behind it. Raise ``OSError``."""
        new = self._keep(batch)
        write_all(self._digests, memoryview(batch.digests[new].tobytes()))
        places = np.where(new, for_validation(batch.digests, self._request.fraction), _DROPPED)
        ends = np.cumsum(batch.tokens)
        for first, last in _runs(places):
            if places[first] != _DROPPED:
                ids = batch.ids[ends[first] - batch.tokens[first] : ends[last - 1]]
                size = int(batch.bytes[first:last].sum())
                self._shards[places[first]].write(ids, batch.tokens[first:last], size)
        progress = self.progress
        progress.skipped.merge(batch.skipped)
        progress.read += batch.read
        self._add_sources(batch.ended)
        progress.position = position

    def _keep(self, batch: Encoded) -> npt.NDArray[np.bool_]:
        """Return which documents are kept, and count the others: (documents,)."""
        if self._near is None:
            new = self._seen.add(batch.digests)
            self.progress.duplicates += int((~new).sum())
            return new
        new = self._near.add(batch.bands)  # an equal document has the same bands
        self._seen.add(batch.digests[new])
        equal = ~new & self._seen.has(batch.digests)
        self.progress.duplicates += int(equal.sum())
        self.progress.near_duplicates += int((~new & ~equal).sum())
        return new

    def _add_sources(self, ends: list[FileEnd]) -> None:
        lines = []
        for source, digest, documents, fault in ends:
            # json.dumps takes four times as long for a dict as for the strings in it.
            line = f'{{"path": {json.dumps(source.shown)}, "bytes": {source.size}, "blake2b": "{digest}"'
            end = f', "fault": {json.dumps(fault)}' if fault else ""
            lines.append(f'{line}, "documents": {documents}{end}}}\n')
            self.progress.faults += bool(fault)
            counts = self.progress.given[source.given]
            counts["files"] += 1
            counts["bytes"] += source.size
            counts["documents"] += documents
        content = "".join(lines).encode()
        write_all(self._sources, memoryview(content))
        self.progress.sources += len(content)

    def sync(self) -> None:
        """Make everything durable that ``progress`` says. Raise ``OSError``."""
        for writer in self._shards:
            writer.sync()
        os.fsync(self._digests.fileno())
        os.fsync(self._sources.fileno())

    def finish(self) -> None:
        """Finish the last shards. Raise ``OSError``."""
        for writer in self._shards:
            writer.close()
        self.sync()

    def close(self) -> None:
        self._seen.close()
        if self._near:
            self._near.close()
        self._digests.close()
        self._sources.close()


def _runs(places: npt.NDArray[Any]) -> list[tuple[int, int]]:
    """Return the first and last index (exclusive) of each run of equal values."""
    if not len(places):
        return []
    borders = [0, *(np.flatnonzero(np.diff(places)) + 1).tolist(), len(places)]
    return list(pairwise(borders))


def _open_at(path: Path, size: int) -> FileIO:
    """Open a file for appending behind its first ``size`` bytes; what is behind them is cut off."""
    file = path.open("r+b" if path.exists() else "w+b", buffering=0)
    file.truncate(size)
    file.seek(size)
    return file
