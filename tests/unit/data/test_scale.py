"""Very many shards and very many tokens: descriptors and memory stay as they are for few."""

from __future__ import annotations

import os
import resource
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from data.dataset import PackedBinDataset, Source
from data.shards import open_shards


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """As on macOS by default, or after ``ulimit -n 256``."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = max(map(int, os.listdir("/dev/fd")))  # of the tests before this one in the same process
    resource.setrlimit(resource.RLIMIT_NOFILE, (in_use + 200, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def dataset(root: Path, phase: str, split: str, context: int) -> PackedBinDataset:
    return PackedBinDataset((Source("", 1.0, open_shards(root, phase, split, 512)),), context, 512, 1)


def read_many(root: Path, shards: int, phases: tuple[str, ...]) -> None:
    """Read a sequence of every shard: its ids are the number of the shard."""
    ids = np.repeat(np.arange(512, dtype="<u2"), 20).reshape(512, 20)
    for phase in phases:
        for split, count in (("train", shards), ("val", 300)):
            folder = root / phase / split
            folder.mkdir(parents=True)
            for k in range(count):
                (folder / f"{k:06d}.bin").write_bytes(ids[k % 512].tobytes())
    opened = [dataset(root, phase, split, 19) for phase in phases for split in ("train", "val")]
    for data in opened:
        batch, _ = data.read_batch(data.initial_cursor(), data.sequences)
        first = data.read_first(data.sequences)[""]
        assert sorted(batch[:, 0]) == sorted(first[:, 0]) == sorted(k % 512 for k in range(data.sequences))


def test_more_shards_in_several_phases_than_a_process_may_open(tmp_path: Path, few_descriptors: None) -> None:
    read_many(tmp_path, 400, ("web", "code", "books"))


@pytest.mark.faults
def test_twenty_thousand_shards(tmp_path: Path, few_descriptors: None) -> None:
    read_many(tmp_path, 20_000, ("web",))


def test_a_million_million_tokens(tmp_path: Path) -> None:
    """Sparse files, with an id other than 0 at the beginning and the end of the last window of each."""
    context, tokens, shards = 4096, (1 << 37) + 1, 8
    last = (tokens - 1) // context * context
    (tmp_path / "p/train").mkdir(parents=True)
    for k in range(shards):
        with (tmp_path / f"p/train/{k}.bin").open("wb") as file:
            file.truncate(2 * tokens)
            for place, id in ((last - context, 10 + k), (last, 20 + k)):
                file.seek(2 * place)
                file.write(int(id).to_bytes(2, "little"))
    tracemalloc.start()
    data = dataset(tmp_path, "p", "train", context)
    assert data.tokens > 1 << 40 and data.sequences == shards * (tokens - 1) // context
    cursor = data.initial_cursor()
    found = [data.read_batch(data.advance(cursor, n), 3)[1] for n in (0, data.sequences - 2, 10**12)]
    assert [(at.epoch, at.position) for at in found] == [(0, 3), (1, 1), divmod(10**12 + 3, data.sequences)]
    places = list(data.order.after(data.advance(cursor, 10**9), 500))
    assert len({(place.shard, place.offset) for place in places}) == 500
    assert {place.shard for place in places} == set(range(shards))
    assert max(place.offset for place in places) > 1 << 36
    windows = data.sequences // shards
    ends = [data.sources[0].shards.read(k, (windows - 1) * context, context + 1) for k in range(shards)]
    assert [(int(row[0]), int(row[-1]), int(row.sum())) for row in ends] == [
        (10 + k, 20 + k, 30 + 2 * k) for k in range(8)
    ]
    assert 0 < data.check_ids(0.01) <= data.tokens
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20
