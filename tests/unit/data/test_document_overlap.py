"""Documents are the same however their ids are cut into blocks, and those of val in train are found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.document_overlap import Cutter, Overlap

END = 0
IDS = st.lists(st.integers(0, 3), max_size=40)


def cut(ids: list[int], block: int, cutter: Cutter) -> list[tuple[int, tuple[int, ...]]]:
    """The first token and the ids of each document."""
    found, buffer = [], np.empty(block, np.uint16)  # each block overwrites the one before
    for start in range(0, len(ids), block):
        part = buffer[: len(ids[start : start + block])]
        part[:] = ids[start : start + block]
        read, starts, stops, begin = cutter.cut(part, start + block >= len(ids))
        found += [(begin + int(a), tuple(read[a:b].tolist())) for a, b in zip(starts, stops, strict=True)]
    return found


def documents(ids: list[int]) -> list[tuple[int, tuple[int, ...]]]:
    found, start = [], 0
    for place, id in enumerate([*ids, END]):
        if id == END:
            found += [(start, tuple(ids[start:place]))] if place > start else []
            start = place + 1
    return found


@given(IDS, st.integers(1, 12))
def test_blocks_change_nothing(ids: list[int], block: int) -> None:
    cutter = Cutter(END)
    assert cut(ids, block, cutter) == documents(ids)
    assert cutter.ends == ids.count(END)


@given(IDS, st.integers(1, 12), st.integers(1, 6))
def test_only_documents_that_are_too_long_are_left_out(ids: list[int], block: int, longest: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data.document_overlap.LONGEST_DOCUMENT", longest)
        cutter = Cutter(END)
        found = cut(ids, block, cutter)
    kept = set(found)
    missing = [document for document in documents(ids) if document not in kept]
    assert len(found) + len(missing) == len(documents(ids))
    assert all(len(text) > longest for _, text in missing)
    assert len(missing) == cutter.too_long


@given(IDS, IDS, st.integers(1, 12))
def test_documents_of_val_in_train_are_found(val: list[int], train: list[int], block: int) -> None:
    overlap = Overlap()
    for ids, take in ((val, overlap.add_val), (train, overlap.look_for)):
        if take == overlap.look_for:
            overlap.freeze()
        cutter = Cutter(END)
        for start in range(0, len(ids), block):
            take(7, cutter.cut(np.array(ids[start : start + block], np.uint16), start + block >= len(ids)))
    texts = {text for _, text in documents(train)}
    shared = [text for _, text in documents(val) if text in texts]
    assert (overlap.compared, overlap.found) == (len(documents(val)), len(shared))
    if shared:
        assert overlap.first is not None
        _, val_token, _, train_token = overlap.first
        assert dict(documents(val))[val_token] == dict(documents(train))[train_token]
