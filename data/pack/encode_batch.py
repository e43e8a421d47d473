"""Hashes the documents of a batch and turns them into ids."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from data.pack.batches import Batch, FileEnd
from data.pack.cuts import places
from data.pack.documents import NOT_UTF8
from data.pack.encoder import Counts, Encoder, Ids
from data.pack.near_duplicates import bands_of
from data.pack.split_rule import Digests, as_digests, digest_of
from data.pack.tally import Tally
from data.pack.vocabulary import Vocabulary

HOLDS_END = "holds the end-of-text token"
_SAMPLE = 8192  # characters of one document in a batch, which the reference encodes too


@dataclass(frozen=True, slots=True)
class Encoded:
    """A batch as ids. Of each document: hash, bytes, and tokens with the end of text; then the ids of all.

    ``bands`` are those by which near-duplicates are found (``data/pack/near_duplicates.py``), or none.
    """

    digests: Digests
    bytes: Counts
    tokens: Counts
    ids: Ids
    skipped: Tally
    ended: list[FileEnd]
    read: int
    bands: Digests


def encode_batch(batch: Batch, encoder: Encoder, vocabulary: Vocabulary, near: float | None = None) -> Encoded:
    """Return the ids of a batch, and its bands to find documents that are alike by ``near``.

    Raise ``UserError`` where the encoder and its reference differ on a sample.
    """
    tokens = np.zeros(len(batch.documents), np.int64)
    bad: dict[int, str] = {}
    joined = bytearray()  # grows in place: a large document has four times its size in ids, to be held once
    for place, (owners, texts, last) in enumerate(_groups(batch.documents, encoder, bad)):
        if not place:
            encoder.check(texts[0][:_SAMPLE], batch.sources[owners[0]].shown)
        ids, counts = encoder.encode(texts)
        ends = np.cumsum(counts)
        for number in np.searchsorted(ends, np.flatnonzero(ids == vocabulary.eot_id), side="right"):
            bad[owners[number]] = HOLDS_END
        ids = np.insert(ids.astype(vocabulary.dtype), ends[last], vocabulary.dtype.type(vocabulary.eot_id))
        joined += ids.data
        np.add.at(tokens, owners, counts + last)
    for number in sorted(bad):
        batch.skipped.add(bad[number], batch.sources[number].shown)
    kept = [number for number in range(len(batch.documents)) if number not in bad]
    if bad:
        _keep(joined, tokens * vocabulary.dtype.itemsize, kept)
    ids, tokens = np.frombuffer(joined, vocabulary.dtype), tokens[kept]
    digests = as_digests(b"".join(batch.digests[number] or digest_of(batch.documents[number]) for number in kept))
    sizes = np.array([len(batch.documents[number]) for number in kept], np.int64)
    bands = as_digests(b"")
    if near is not None:
        bands = bands_of(np.delete(ids, np.cumsum(tokens) - 1), tokens - 1, near)
    return Encoded(digests, sizes, tokens, ids, batch.skipped, batch.ended, batch.read, bands)


def _keep(joined: bytearray, sizes: Counts, kept: list[int]) -> None:
    """Leave only the ids of some documents, in place; ``sizes`` are the bytes that each document has there."""
    ends, to = np.cumsum(sizes), 0
    with memoryview(joined) as view:
        for number in kept:
            size = int(sizes[number])
            view[to : to + size] = view[int(ends[number]) - size : int(ends[number])]
            to += size
    del joined[to:]


def _groups(
    documents: list[bytes], encoder: Encoder, bad: dict[int, str]
) -> Iterator[tuple[list[int], list[str], list[bool]]]:
    """Yield texts, as many as ``encoder`` gets at once, the number of the document of each, and whether it is its last.

    ``bad`` receives the numbers of documents that cannot be encoded, and why.
    """
    owners: list[int] = []
    texts: list[str] = []
    last: list[bool] = []
    size = 0
    for number, document in enumerate(documents):
        borders = [0, *(places(document, encoder.part) if encoder.cuts else []), len(document)]
        if max(end - start for start, end in pairwise(borders)) > encoder.most:
            bad[number] = f"has {encoder.most >> 20} MiB that the tokenizer does not cut"
            continue
        try:
            for start, end in pairwise(borders):
                texts.append(str(document[start:end], "utf-8"))
                owners.append(number)
                last.append(end == len(document))
                size += end - start
                if size >= encoder.at_once:
                    yield owners, texts, last
                    owners, texts, last, size = [], [], [], 0
        except UnicodeDecodeError:
            bad[number] = NOT_UTF8
    if texts:
        yield owners, texts, last
