"""Hashes the documents of a batch and turns them into ids."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

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
    texts: list[str] = []
    owners: list[int] = []  # of each text the place of its document among those that are good
    good: list[int] = []
    for number, document in enumerate(batch.documents):
        try:
            parts = [str(part, "utf-8") for part in _parts(document)]
        except UnicodeDecodeError:
            batch.skipped.add(NOT_UTF8, batch.sources[number].path)
            continue
        owners += [len(good)] * len(parts)
        texts += parts
        good.append(number)
    if texts:
        encoder.check(texts[0][:_SAMPLE], batch.sources[good[0]].path)
    ids, counts = _encode(texts, encoder, vocabulary.dtype)
    tokens = np.bincount(np.array(owners, np.int64), counts, len(good)).astype(np.int64)
    if len(inside := np.flatnonzero(ids == vocabulary.eot_id)):
        keep = np.ones(len(good), np.bool_)
        keep[np.searchsorted(np.cumsum(tokens), inside, side="right")] = False
        for number, kept in zip(good, keep, strict=True):
            if not kept:
                batch.skipped.add(HOLDS_END, batch.sources[number].path)
        ids, tokens = ids[np.repeat(keep, tokens)], tokens[keep]
        good = [number for number, kept in zip(good, keep, strict=True) if kept]
    digests = as_digests(b"".join(batch.digests[number] or digest_of(batch.documents[number]) for number in good))
    sizes = np.array([len(batch.documents[number]) for number in good], np.int64)
    ids = np.insert(ids, np.cumsum(tokens), vocabulary.dtype.type(vocabulary.eot_id))
    return Encoded(digests, sizes, tokens + 1, ids, batch.skipped, batch.ended, batch.read)


def _encode(texts: list[str], encoder: Encoder, dtype: np.dtype[Any]) -> tuple[Ids, Counts]:
    """Encode texts, a few MiB at once, and return all ids as ``dtype`` and the count of each text."""
    parts, counts = [np.empty(0, dtype)], [np.empty(0, np.int64)]
    for group in _groups(texts):
        ids, each = encoder.encode(group)
        parts.append(ids.astype(dtype))
        counts.append(each)
    return np.concatenate(parts), np.concatenate(counts)


def _groups(texts: list[str]) -> Iterator[list[str]]:
    start = size = 0
    for number, text in enumerate(texts):
        size += len(text)
        if size >= _AT_ONCE or number == len(texts) - 1:
            yield texts[start : number + 1]
            start, size = number + 1, 0


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
