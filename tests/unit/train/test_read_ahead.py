"""Reading ahead: the same sequences as read in the step, at the same time as the step, and no thread left behind."""

from __future__ import annotations

import gc
import resource
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.cursor import Cursor
from data.dataset import PackedBinDataset, Source
from data.shards import ShardSet, open_shards
from engine.events.requests import SetRequest
from engine.events.types import Command, Event, Step
from engine.train.backends.build import build_backend
from engine.train.backends.ranks import SingleRank
from engine.train.loop import Trainer
from engine.train.read_ahead import ReadAhead
from engine.train.run_state import RunState
from profiles.errors import NeedsAttentionError, UserError
from tests.unit.train.tiny_runs import MakeSpec, RecordingReporter

SLOW = 0.02  # seconds a read from a slow disk takes


def threads() -> int:
    return sum(thread.name == "read ahead" for thread in threading.enumerate())


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PackedBinDataset:
    return write(tmp_path_factory.mktemp("ahead"), 700, 300)


def write(root: Path, *lengths: int, apart: int = 1000) -> PackedBinDataset:
    folder = root / "p" / "train"
    folder.mkdir(parents=True)
    for k, length in enumerate(lengths):
        np.arange(k * apart, k * apart + length, dtype="<u2").tofile(folder / f"p-train-{k:03d}.bin")
    return PackedBinDataset((Source("", 1.0, open_shards(root, "p", "train", 4096)),), 8, 4096, 1)


@pytest.fixture
def ahead() -> Iterator[ReadAhead]:
    reader = ReadAhead(3)
    yield reader
    reader.close()
    assert threads() == 0


STEPS = st.one_of(
    st.just("advance"),
    st.tuples(st.just("context"), st.integers(1, 40)),
    st.tuples(st.just("sequences"), st.integers(1, 30)),
    st.tuples(st.just("rewind"), st.integers(0, 200)),
    st.just("again"),
)


@settings(max_examples=60, deadline=None)
@given(workers=st.integers(0, 5), steps=st.lists(STEPS, max_size=12))
def test_any_course_of_edits_and_rewinds_reads_the_same(data: PackedBinDataset, workers: int, steps: list[Any]) -> None:
    reader, n = ReadAhead(workers), 8
    cursor = data.initial_cursor()
    try:
        for step in steps:
            match step:
                case ("context", context):
                    data = data.at_context(context)
                    cursor = cursor.at_context(context)
                case ("sequences", count):
                    n = count
                case ("rewind", skipped):
                    cursor = data.advance(data.initial_cursor(), skipped)
            expected, after = data.read_batch(cursor, n)
            found, cursor_after = reader.read_batch(data, cursor, n)
            assert np.array_equal(found, expected) and found.dtype == expected.dtype
            assert cursor_after == after
            cursor = cursor if step == "again" else after
    finally:
        reader.close()
    assert threads() == 0


def losses(spec: Any, out: Path) -> list[float]:
    edits = [{"context": 16}, {"sequences": 16}, {"micro": 2}, {"context": 32}]

    def respond(record: dict[str, Any]) -> list[Command]:
        if record["kind"] != "step" or record["step"] % 2 or not edits:
            return []
        id = f"edit-{len(edits)}"
        return [Command(id=id, request=SetRequest(changes=edits.pop(0), unlock=True), by="test")]

    log = RecordingReporter(respond)
    Trainer(RunState(spec), build_backend(spec, SingleRank()), log, out, run="run").run(None, None)
    assert all(edit["ok"] for edit in log.of("edit")) and len(log.of("edit")) == 4
    return list(log.losses().values())


def test_the_losses_of_an_edited_run_do_not_depend_on_the_workers(nano: MakeSpec, tmp_path: Path) -> None:
    one, *others = (
        losses(nano("steps=10", "save_every=0", "val_every=0", f"workers={n}"), tmp_path / str(n)) for n in (0, 1, 4)
    )
    assert others == [one, one]
    assert threads() == 0


def test_a_step_does_not_wait_for_what_was_read_ahead(
    data: PackedBinDataset, ahead: ReadAhead, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, count = ShardSet.read, []

    def slow_read(*args: Any) -> Any:
        time.sleep(SLOW)
        count.append(args)
        return read(*args)

    monkeypatch.setattr(ShardSet, "read", slow_read)
    _, cursor = ahead.read_batch(data, data.initial_cursor(), 9)
    until(lambda: len(count) == 18)  # a step computes meanwhile
    before = time.perf_counter()
    ahead.read_batch(data, cursor, 9)
    assert time.perf_counter() - before < SLOW


def test_an_error_is_raised_by_the_step_that_needs_the_data(tmp_path: Path, ahead: ReadAhead) -> None:
    data = write(tmp_path, 400)
    _, cursor = ahead.read_batch(data, data.initial_cursor(), 4)
    until(ahead_is_read(ahead))
    (path,) = (shard.path for shard in data.shards)
    content = path.read_bytes()
    path.write_bytes(content[:-2])
    _, cursor = ahead.read_batch(data, cursor, 4)  # was read before; the next four cannot be
    until(ahead_is_read(ahead))
    with pytest.raises(NeedsAttentionError) as direct:
        data.read_batch(cursor, 4)
    with pytest.raises(NeedsAttentionError) as error:
        ahead.read_batch(data, cursor, 4)
    assert str(error.value) == str(direct.value)


def test_an_error_that_has_passed_is_not_raised(tmp_path: Path, ahead: ReadAhead) -> None:
    data = write(tmp_path, 400)
    (path,) = (shard.path for shard in data.shards)
    content, cursor = path.read_bytes(), data.initial_cursor()
    path.write_bytes(content[:-2])
    with pytest.raises(NeedsAttentionError):
        ahead.read_batch(data, cursor, 4)
    path.write_bytes(content)
    assert np.array_equal(ahead.read_batch(data, cursor, 4)[0], data.read_batch(cursor, 4)[0])


def test_an_id_outside_the_vocabulary_ends_the_step_that_reads_it(data: PackedBinDataset, ahead: ReadAhead) -> None:
    small = PackedBinDataset(data.sources, 8, 1290, 1)
    cursor, steps = small.initial_cursor(), 0
    with pytest.raises(UserError, match="1290"):
        while True:
            _, cursor = ahead.read_batch(small, cursor, 4)
            steps += 1
    direct = small.initial_cursor()
    for _ in range(steps):
        _, direct = small.read_batch(direct, 4)
    with pytest.raises(UserError):
        small.read_batch(direct, 4)


def test_threads_end_with_their_reader(data: PackedBinDataset) -> None:
    reader = ReadAhead(4)
    reader.read_batch(data, data.initial_cursor(), 8)
    assert threads() == 4
    del reader
    gc.collect()
    assert threads() == 0


def test_a_run_that_fails_leaves_no_thread(nano: MakeSpec, tmp_path: Path) -> None:
    spec = nano("steps=4", "save_every=0", "val_every=0")

    class Failing(RecordingReporter):
        def record(self, event: Event) -> None:
            if isinstance(event, Step):
                assert threads() == spec.data.workers
                raise RuntimeError("fails")

    with pytest.raises(RuntimeError, match="fails"):
        Trainer(RunState(spec), build_backend(spec, SingleRank()), Failing(), tmp_path / "out").run(None, None)
    assert threads() == 0


def test_there_is_no_thread_where_the_address_space_is_limited(data: PackedBinDataset, ahead: ReadAhead) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 46, hard))
    try:
        found, _ = ahead.read_batch(data, Cursor(1, 8), 8)
        assert threads() == 0
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert np.array_equal(found, data.read_batch(Cursor(1, 8), 8)[0])


def ahead_is_read(reader: ReadAhead) -> Callable[[], bool]:
    return lambda: reader._ahead is not None and reader._ahead._done.is_set()


def test_threads_share_the_open_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More shards than are kept open: a file is closed by one thread while others read."""
    monkeypatch.setattr("data.open_files.MAX_OPEN", 2)
    data, reader = write(tmp_path, *[20] * 40, apart=3), ReadAhead(8)
    cursor = data.initial_cursor()
    for _ in range(20):
        expected, _ = data.read_batch(cursor, 40)
        found, cursor = reader.read_batch(data, cursor, 40)
        assert np.array_equal(found, expected)
    reader.close()
