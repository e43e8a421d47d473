"""Hashes the documents of a batch and turns them into ids."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.pack.batches import Batch, FileEnd
from data.pack.documents import NOT_UTF8
from data.pack.encoder import Counts, Encoder, Ids
from data.pack.split_rule import Digests, as_digests, digest_of
from data.pack.tally import Tally
from data.pack.vocabulary import Vocabulary

HOLDS_END = "holds the end-of-text token"
# A longer document is encoded in parts: the encoder needs up to 40 times the memory of a text without spaces.
PART_BYTES = 2 << 20
_LINE_END = re.compile(rb"\n(?=[!-~])")  # before no white space, so that no word goes across in the usual patterns
_AT_ONCE = 4 << 20  # bytes
_SAMPLE = 8192  # characters of one document in a batch, which the reference encodes too


@dataclass(frozen=True, slots=True)
class Encoded:
    """A batch as ids. Of each document: hash, bytes, and tokens with the end of text; then the ids of all."""

    digests: Digests
    bytes: Counts
    tokens: Counts
    ids: Ids
    skipped: Tally
    ended: list[FileEnd]
    read: int


def encode_batch(batch: Batch, encoder: Encoder, vocabulary: Vocabulary) -> Encoded:
    """Return the ids of a batch. Raise ``UserError`` where the encoder and its reference differ on a sample."""
    count = len(batch.documents)
    keep = np.ones(count, np.bool_)
    tokens = np.zeros(count, np.int64)
    parts = [np.empty(0, vocabulary.dtype)]
    for place, (owners, texts) in enumerate(_groups(batch.documents, keep)):
        if not place:
            encoder.check(texts[0][:_SAMPLE], batch.sources[owners[0]].path)
        ids, counts = encoder.encode(texts)
        parts.append(ids.astype(vocabulary.dtype))
        np.add.at(tokens, owners, counts)
    ids = np.concatenate(parts)
    del parts
    for number in np.flatnonzero(~keep):
        batch.skipped.add(NOT_UTF8, batch.sources[number].path)
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
    ids = np.insert(ids, np.cumsum(tokens), vocabulary.dtype.type(vocabulary.eot_id))
    return Encoded(digests, sizes, tokens + 1, ids, batch.skipped, batch.ended, batch.read)


def _groups(documents: list[bytes], keep: npt.NDArray[np.bool_]) -> Iterator[tuple[list[int], list[str]]]:
    """Yield texts, a few MiB at once, and the number of the document of each; ``keep`` becomes False for bad ones."""
    owners: list[int] = []
    texts: list[str] = []
    size = 0
    for number, document in enumerate(documents):
        try:
            for part in _parts(document):
                texts.append(str(part, "utf-8"))
                owners.append(number)
                size += len(part)
                if size >= _AT_ONCE:
                    yield owners, texts
                    owners, texts, size = [], [], 0
        except UnicodeDecodeError:
            keep[number] = False
    if texts:
        yield owners, texts


def _parts(document: bytes) -> Iterator[bytes]:
    """Cut a document into parts of about ``PART_BYTES``: behind a line end, or at least between two characters."""
    start = 0
    while len(document) - start > 2 * PART_BYTES:
        found = _LINE_END.search(document, start + PART_BYTES, start + 2 * PART_BYTES)
        end = found.end() if found else start + 2 * PART_BYTES
        while document[end] & 0xC0 == 0x80:  # within a character
            end -= 1
        yield document[start:end]
        start = end
    yield document[start:]
