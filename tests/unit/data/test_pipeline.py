"""What a pack has in memory at a time, however slow the thread is that merges."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from data.pack.batches import Batch, Task
from data.pack.encode_batch import Encoded
from data.pack.pipeline import Pipeline, Position
from data.pack.split_rule import as_digests
from data.pack.tally import Tally

SIZE, TASKS, READERS = 60 << 20, 6, 4


def test_large_documents_that_wait_to_be_merged_keep_others_from_being_read() -> None:
    read: list[int] = []
    changed, all_readers = threading.Condition(), threading.Barrier(READERS)

    def batches(task: Task, hold_large: Callable[[], object]) -> Iterator[Batch]:
        if not read:  # all were let in while nothing was in flight
            all_readers.wait(timeout=60)
        hold_large()
        with changed:
            read.append(len(read))
            changed.notify_all()
        yield Batch(bytes=SIZE, large=True)

    def encode(batch: Batch) -> Encoded:
        none: Any = np.zeros(0, np.int64)
        return Encoded(as_digests(b""), none, none, none, Tally(), [], 0, as_digests(b""))

    with Pipeline(iter([Task(())] * TASKS), Position(0, 0), batches, encode, workers=READERS) as pipeline:
        for merged, _ in enumerate(pipeline, 1):
            with changed:  # the ones that are merged, one that waits, and one that is read
                assert not changed.wait_for(lambda merged=merged: len(read) > merged + 2, timeout=0.2), read  # type: ignore[misc]
    assert len(read) == TASKS
