"""Groups files into tasks, and the documents of a task into batches of a few MiB."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from data.pack.documents import Skipped, is_one_document, read_documents
from data.pack.raw_file import FileFault, RawFile
from data.pack.sources import Source
from data.pack.tally import Tally

BATCH_BYTES = 4 << 20
BATCH_DOCUMENTS = 4096


class Task(NamedTuple):
    """Consecutive files that one thread reads."""

    sources: tuple[Source, ...]


class FileEnd(NamedTuple):
    """A file that was read. ``digest`` is empty where it was not read to its end, ``fault`` where nothing was wrong."""

    source: Source
    digest: str
    documents: int
    fault: str


@dataclass(slots=True)
class Batch:
    """Documents in order, of each its hash if that is known and its file, and what happened between them.

    ``bytes`` are those of the documents, ``read`` those of the source files.
    """

    documents: list[bytes] = field(default_factory=list)
    digests: list[bytes | None] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    skipped: Tally = field(default_factory=Tally)
    ended: list[FileEnd] = field(default_factory=list)
    bytes: int = 0
    read: int = 0
    large: bool = False

    @property
    def full(self) -> bool:
        return self.bytes >= BATCH_BYTES or len(self.documents) >= BATCH_DOCUMENTS


def group_tasks(sources: Iterable[Source]) -> Iterator[Task]:
    """Group files into tasks of at least ``BATCH_BYTES``, or ``BATCH_DOCUMENTS`` files."""
    group, size = [], 0
    for source in sources:
        group.append(source)
        size += source.size
        if size >= BATCH_BYTES or len(group) == BATCH_DOCUMENTS:
            yield Task(tuple(group))
            group, size = [], 0
    if group:
        yield Task(tuple(group))


def read_batches(task: Task, hold_large: Callable[[], object], key: str, separator: bytes | None) -> Iterator[Batch]:
    """Yield the batches of a task; their borders depend on the files alone.

    ``hold_large`` is called once for each batch with a large document, before that is held, and may wait.
    """
    batch = Batch()

    def hold() -> None:
        if not batch.large:
            hold_large()
            batch.large = True

    for source in task.sources:
        documents, position, digest, fault = 0, 0, "", source.fault
        one = is_one_document(source.path)
        try:
            if not fault:
                with RawFile(source) as raw:
                    for item in read_documents(source, raw, key, separator, hold):
                        if isinstance(item, Skipped):
                            batch.skipped.add(item, source.shown)
                        else:
                            same = one and len(item) == source.size == raw.position
                            batch.documents.append(item)
                            batch.digests.append(raw.digest() if same else None)
                            batch.sources.append(source)
                            batch.bytes += len(item)
                            documents += 1
                        del item  # it would be held while the next one is read
                        batch.read, position = batch.read + raw.position - position, raw.position
                        if batch.full:
                            yield batch
                            batch = Batch()
                    raw.check_unchanged()
                    digest = raw.digest().hex() if raw.position == source.size else ""
        except FileFault as error:
            fault = str(error)
        except OSError as error:
            fault = error.strerror or str(error)
        batch.read += source.size - position
        batch.ended.append(FileEnd(source, digest, documents, fault))
    yield batch
