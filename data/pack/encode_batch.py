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
    parts = [np.empty(0, vocabulary.dtype)]
    for place, (owners, texts) in enumerate(_groups(batch.documents, encoder, bad)):
        if not place:
            encoder.check(texts[0][:_SAMPLE], batch.sources[owners[0]].path)
        ids, counts = encoder.encode(texts)
        parts.append(ids.astype(vocabulary.dtype))
        np.add.at(tokens, owners, counts)
    ids = np.concatenate(parts)
    del parts
    keep = np.ones(len(batch.documents), np.bool_)
    for number, reason in bad.items():
        batch.skipped.add(reason, batch.sources[number].path)
        keep[number] = False
    if len(inside := np.flatnonzero(ids == vocabulary.eot_id)):
        holds = np.unique(np.searchsorted(np.cumsum(tokens), inside, side="right"))
        for number in holds[keep[holds]]:
            batch.skipped.add(HOLDS_END, batch.sources[number].path)
        keep[holds] = False
    if not keep.all():
        ids, tokens = ids[np.repeat(keep, tokens)], tokens[keep]
    good = np.flatnonzero(keep).tolist()
    digests = as_digests(b"".join(batch.digests[number] or digest_of(batch.documents[number]) for number in good))
    sizes = np.array([len(batch.documents[number]) for number in good], np.int64)
    bands = as_digests(b"") if near is None else bands_of(ids, tokens, near)
    ids = np.insert(ids, np.cumsum(tokens), vocabulary.dtype.type(vocabulary.eot_id))
    return Encoded(digests, sizes, tokens + 1, ids, batch.skipped, batch.ended, batch.read, bands)


def _groups(documents: list[bytes], encoder: Encoder, bad: dict[int, str]) -> Iterator[tuple[list[int], list[str]]]:
    """Yield texts, as many as ``encoder`` gets at once, and the number of the document of each.

    ``bad`` receives the numbers of documents that cannot be encoded, and why.
    """
    owners: list[int] = []
    texts: list[str] = []
    size = 0
    for number, document in enumerate(documents):
        step = encoder.at_once // 2
        borders = [0, *(places(document, step) if encoder.cuts else []), len(document)]
        if max(end - start for start, end in pairwise(borders)) > encoder.most:
            bad[number] = f"has {encoder.most >> 20} MiB that the tokenizer does not cut"
            continue
        try:
            for start, end in pairwise(borders):
                texts.append(str(document[start:end], "utf-8"))
                owners.append(number)
                size += end - start
                if size >= encoder.at_once:
                    yield owners, texts
                    owners, texts, size = [], [], 0
        except UnicodeDecodeError:
            bad[number] = NOT_UTF8
    if texts:
        yield owners, texts
