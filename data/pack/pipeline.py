"""Reads, hashes and encodes files in several threads, and hands over the batches in the order of the files.

Threads, not processes: what takes the time (reading, decompressing, hashing, encoding) runs outside Python's lock, and
nothing has to be copied from one process to another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from queue import SimpleQueue
from threading import Condition
from types import TracebackType
from typing import NamedTuple

from data.pack.batches import Batch, Task
from data.pack.encode_batch import Encoded
from data.pack.freed_memory import return_large_blocks, return_memory

_READERS = 4  # at most; more would only wait for Python's lock
_IN_FLIGHT = 32 << 20  # bytes that are read and not yet merged, above which no more are read
_OF_A_DOCUMENT = 512  # bytes beside its text: objects, hashes, bands


class Position(NamedTuple):
    """How far a pack is: ``batches`` of task number ``task`` are done, and all of the tasks before it."""

    task: int
    batches: int


class _Stopped(Exception):
    """Ends a reader whose result is not waited for."""


class _Budget:
    """Limits the text in flight, without ever stopping the task that is merged next.

    Of large documents one is read and encoded at a time, and none is begun where the text in flight is too much: their
    ids, of up to four times the size, wait to be merged.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._used: dict[int, int] = {}
        self._current = -1
        self._stopped = False
        self._large = False

    def wait(self, task: int) -> None:
        """Wait until ``task`` may read a batch. Raise ``_Stopped``."""
        with self._changed:
            while not self._stopped and not self._may_read(task):
                self._changed.wait()
            if self._stopped:
                raise _Stopped

    def _may_read(self, task: int) -> bool:
        return sum(self._used.values()) < _IN_FLIGHT or (task == self._current and not self._used.get(task))

    def add(self, task: int, size: int) -> None:
        with self._changed:
            self._used[task] = self._used.get(task, 0) + size

    def begin_large(self, task: int) -> None:
        """Wait until ``task`` may read a large document. Raise ``_Stopped``."""
        with self._changed:
            while not self._stopped and (self._large or not self._may_read(task)):
                self._changed.wait()
            if self._stopped:
                raise _Stopped
            self._large = True

    def end_large(self) -> None:
        with self._changed:
            self._large = False
            self._changed.notify_all()

    def release(self, task: int, size: int) -> None:
        with self._changed:
            self._used[task] -= size
            self._changed.notify_all()

    def begin(self, task: int) -> None:
        """Say which task is merged now; nothing of those before it is left."""
        with self._changed:
            self._used.pop(self._current, None)
            self._current = task
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()


_Queue = SimpleQueue[tuple[int, Future[Encoded]] | BaseException | None]


class Pipeline:
    """Iterates over (position behind the batch, batch), in order. As a context it ends its threads."""

    def __init__(
        self,
        tasks: Iterator[Task],
        start: Position,
        read: Callable[[Task, Callable[[], object]], Iterator[Batch]],
        encode: Callable[[Batch], Encoded],
        workers: int,
    ) -> None:
        """``read`` gives the batches of a task, ``encode`` turns one into ids; both are called in other threads.

        The second argument of ``read`` is called before it holds a large document.
        """
        self._tasks, self._start = tasks, start
        self._read, self._encode = read, encode
        self._budget = _Budget()
        self._ahead = 2 * min(workers, _READERS)
        self._readers = ThreadPoolExecutor(min(workers, _READERS), "read")
        self._encoders = ThreadPoolExecutor(min(workers, _READERS), "encode")

    def __enter__(self) -> Pipeline:
        return_large_blocks()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._budget.stop()
        self._readers.shutdown(cancel_futures=True)
        self._encoders.shutdown(cancel_futures=True)

    def __iter__(self) -> Iterator[tuple[Position, Encoded]]:
        numbered = islice(enumerate(self._tasks), self._start.task, None)
        waiting: deque[tuple[int, _Queue]] = deque()
        while True:
            for number, task in islice(numbered, self._ahead - len(waiting)):
                queue: _Queue = SimpleQueue()
                done = self._start.batches if number == self._start.task else 0
                self._readers.submit(self._run, number, task, done, queue)
                waiting.append((number, queue))
            if not waiting:
                return
            number, queue = waiting.popleft()
            self._budget.begin(number)
            batches = self._start.batches if number == self._start.task else 0
            while (found := queue.get()) is not None:
                if isinstance(found, BaseException):
                    raise found
                size, future = found
                encoded = future.result()
                batches += 1
                yield Position(number, batches), encoded
                self._budget.release(number, size)

    def _run(self, number: int, task: Task, done: int, queue: _Queue) -> None:
        """Read one task; runs in a thread. Batches that an earlier attempt has merged are read again and dropped."""
        try:
            batches = self._read(task, partial(self._budget.begin_large, number))
            for dropped in islice(batches, done):
                if dropped.large:
                    self._budget.end_large()
            while True:
                self._budget.wait(number)
                batch = next(batches, None)
                if batch is None:
                    break
                size = batch.bytes + _OF_A_DOCUMENT * len(batch.documents)
                self._budget.add(number, size)
                queue.put((size, self._encoders.submit(self._encoded, batch)))
                del batch
            queue.put(None)
        except _Stopped:
            pass
        except BaseException as error:
            queue.put(error)

    def _encoded(self, batch: Batch) -> Encoded:
        try:
            return self._encode(batch)
        finally:
            if batch.large:
                batch.documents.clear()
                return_memory()
                self._budget.end_large()
