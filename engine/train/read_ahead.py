"""Reads the sequences of the next step in threads while the step before computes.

What a step reads is a pure function of dataset, cursor and number of sequences. So what was read ahead is used if these
three are those that the step asks for, and dropped otherwise: after an edit, a rewind or a step done again.
"""

from __future__ import annotations

import queue
import threading
import time
import weakref

import numpy as np

from data.cursor import Cursor
from data.dataset import PackedBinDataset
from engine.host.threads import start_daemon
from engine.train.backends.backend import Batch

_CLOSE_SECONDS = 1.0  # to wait at the end for reads that have begun; one that hangs for longer ends with the process


class ReadAhead:
    """Up to ``workers`` threads that read one step ahead. They use numpy alone, never torch.

    0 threads, or none where the address space is limited: every step reads its own sequences.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._threads: list[threading.Thread] = []
        self._parts: _Parts = queue.SimpleQueue()
        self._ahead: _Step | None = None
        # A thread has no reference to this object, so the threads also end where close is never called.
        self._finalizer = weakref.finalize(self, _end, self._threads, self._parts)

    def read_batch(self, data: PackedBinDataset, cursor: Cursor, n: int) -> tuple[Batch, Cursor]:
        """Return what ``data.read_batch(cursor, n)`` returns, and begin to read the ``n`` sequences after them.

        Raise what it raises, and only for the sequences asked for: what the threads cannot read is read again here.
        """
        step, self._ahead = self._ahead, None
        if step is not None and step.asked != (data, cursor, n):
            step.dropped = True
            step = None
        step = step or self._begin(data, cursor, n)
        found = (step and step.wait()) or data.read_batch(cursor, n)
        self._ahead = self._begin(data, found[1], n)
        return found

    def close(self) -> None:
        """End the threads; call nothing after it."""
        if self._ahead is not None:
            self._ahead.dropped = True
        self._finalizer()

    def _begin(self, data: PackedBinDataset, cursor: Cursor, n: int) -> _Step | None:
        """Let the threads read; None where there are none."""
        while len(self._threads) < min(self._workers, n):
            thread = start_daemon("read ahead", _work, self._parts)
            if thread is None:
                break
            self._threads.append(thread)
        if not self._threads:
            return None
        count = min(len(self._threads), n)
        step = _Step(data, cursor, n, count)
        for part in range(count):
            self._parts.put((step, part))
        return step


class _Step:
    """The read of one step: ``n`` sequences in ``count`` parts of about the same size."""

    def __init__(self, data: PackedBinDataset, cursor: Cursor, n: int, count: int) -> None:
        self.asked = data, cursor, n
        self.dropped = False
        self._batch: Batch | None = None
        self._after = cursor
        self._bounds = [part * n // count for part in range(count + 1)]
        self._left = count
        self._failed = False
        self._changing = threading.Lock()
        self._done = threading.Event()

    def read(self, part: int) -> None:
        """Read one part."""
        try:
            if not (self.dropped or self._failed):
                self._read(*self._bounds[part : part + 2])
        except Exception:  # the step reads it again, and raises that error if it is still there
            self._failed = True
        with self._changing:
            self._left -= 1
            if not self._left:
                self._done.set()

    def _read(self, first: int, last: int) -> None:
        data, cursor, n = self.asked
        sequences, after = data.read_batch(data.advance(cursor, first), last - first)
        with self._changing:
            if self._batch is None:
                self._batch = np.empty((n, data.context + 1), np.int64)
        self._batch[first:last] = sequences
        if last == n:
            self._after = after

    def wait(self) -> tuple[Batch, Cursor] | None:
        """Return the sequences and the cursor behind them once all parts are read; None if one could not be."""
        self._done.wait()
        return None if self._failed or self._batch is None else (self._batch, self._after)


_Parts = queue.SimpleQueue[tuple[_Step, int] | None]


def _work(parts: _Parts) -> None:
    while (task := parts.get()) is not None:
        step, part = task
        step.read(part)
        del task, step  # or this thread would hold the last step's sequences


def _end(threads: list[threading.Thread], parts: _Parts) -> None:
    for _ in threads:
        parts.put(None)
    deadline = time.monotonic() + _CLOSE_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
