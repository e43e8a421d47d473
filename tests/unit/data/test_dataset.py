"""The dataset: complete epochs, in an order that does not depend on batch sizes, without ids outside the vocabulary."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.cursor import Cursor
from data.dataset import PackedBinDataset, Source
from data.shards import open_shards
from profiles.errors import UserError


def make(root: Path, lengths: list[int], split: str = "train") -> list[np.ndarray]:
    """Shards of counting ids, so that a window tells where it came from."""
    folder = root / "p" / split
    folder.mkdir(parents=True, exist_ok=True)
    shards, start = [], 0
    for k, length in enumerate(lengths):
        ids = np.arange(start, start + length, dtype="<u2")
        ids.tofile(folder / f"p-{split}-{k:03d}.bin")
        shards.append(ids)
        start += length
    return shards


def dataset(root: Path, context: int = 8, vocab: int = 65536, seed: int = 1, split: str = "train") -> PackedBinDataset:
    return PackedBinDataset((Source("", 1.0, open_shards(root, "p", split, vocab)),), context, vocab, seed)


@given(st.lists(st.integers(1, 80), min_size=1, max_size=5), st.integers(1, 10), st.integers(0, 2**64))
def test_an_epoch_holds_each_window_once(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], context: int, seed: int
) -> None:
    root = tmp_path_factory.mktemp("epoch")
    shards = make(root, [*lengths, context + 1])
    data = dataset(root, context, seed=seed)
    batch, cursor = data.read_batch(data.initial_cursor(), data.sequences)
    expected = [s[k : k + context + 1] for s in shards for k in range(0, len(s) - context, context)]
    assert sorted(map(tuple, batch)) == sorted(map(tuple, expected))
    assert batch.dtype == np.int64
    assert (cursor.epoch, cursor.position) == (1, 0)
    assert data.tokens == sum(map(len, shards))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.integers(0, 40))
def test_splitting_a_step_into_several_reads_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, parts: list[int], skip: int
) -> None:
    root = tmp_path_factory.mktemp("split")
    make(root, [100, 57])
    data = dataset(root)
    start = data.initial_cursor().advance(skip, data.sequences)
    whole, end = data.read_batch(start, sum(parts))
    cursor, pieces = start, []
    for n in parts:
        piece, cursor = data.read_batch(cursor, n)
        pieces.append(piece)
    assert np.array_equal(np.concatenate(pieces), whole)
    assert cursor == end


def test_a_batch_continues_into_the_next_epoch(tmp_path: Path) -> None:
    make(tmp_path, [81])
    data = dataset(tmp_path)
    assert data.sequences == 10
    batch, cursor = data.read_batch(data.initial_cursor(), 25)
    rows = [tuple(row) for row in batch]
    assert len(set(rows[:10])) == len(set(rows[10:20])) == 10
    assert rows[:10] != rows[10:20]
    assert (cursor.epoch, cursor.position, cursor.consumed) == (2, 5, 25)


def test_resuming_from_json_continues(tmp_path: Path) -> None:
    make(tmp_path, [500])
    data = dataset(tmp_path)
    _, cursor = data.read_batch(data.initial_cursor(), 7)
    expected, _ = data.read_batch(cursor, 5)
    again, _ = dataset(tmp_path, seed=99).read_batch(Cursor.from_dict(cursor.to_dict()), 5)
    assert np.array_equal(again, expected)


def test_read_batch_reads_where_the_order_points(tmp_path: Path) -> None:
    shards = make(tmp_path, [100, 57])
    data = dataset(tmp_path)
    batch, _ = data.read_batch(data.initial_cursor(), data.sequences)
    for place, row in zip(data.order.after(data.initial_cursor(), data.sequences), batch, strict=True):
        assert np.array_equal(row, shards[place.shard][place.offset : place.offset + 9])


def test_a_new_context_starts_new_epochs(tmp_path: Path) -> None:
    make(tmp_path, [200])
    short, long = dataset(tmp_path, 8), dataset(tmp_path, 16)
    _, cursor = short.read_batch(short.initial_cursor(), 5)
    cursor = cursor.at_context(16)
    batch, after = long.read_batch(cursor, long.sequences)
    assert len({tuple(row) for row in batch}) == long.sequences
    assert (cursor.epoch, after.epoch) == (1, 2)
    with pytest.raises(ValueError, match="context 16, the dataset 8"):
        short.read_batch(cursor, 1)


def test_read_first_returns_windows_in_file_order(tmp_path: Path) -> None:
    shards = make(tmp_path, [20, 5, 30], split="val")
    data = dataset(tmp_path, split="val")
    expected = np.stack([shards[0][0:9], shards[0][8:17], shards[2][0:9], shards[2][8:17], shards[2][16:25]])
    assert np.array_equal(data.read_first(3)[""], expected[:3])
    assert np.array_equal(data.read_first(100)[""], expected)
    assert data.read_first(0)[""].shape == (0, 9)


def test_an_id_outside_the_vocabulary_is_located(tmp_path: Path) -> None:
    make(tmp_path, [50, 50])
    data = dataset(tmp_path, context=10, vocab=73)
    for read in (lambda: data.read_batch(data.initial_cursor(), data.sequences), lambda: data.read_first(99)):
        with pytest.raises(UserError) as caught:
            read()
        text = str(caught.value)
        shard, token, wrong = (
            tmp_path / "p/train/p-train-001.bin",
            text.split("token ")[1].split()[0],
            text.split("id ")[1],
        )
        assert str(shard) in text
        assert int(wrong.split(",")[0]) == 50 + int(token) >= 73
        assert "vocabulary of 73" in text
    assert dataset(tmp_path, context=10, vocab=91).read_first(99)[""].max() == 90
    with pytest.raises(UserError, match="id 90, outside the model's vocabulary of 90"):
        dataset(tmp_path, context=10, vocab=90).read_first(99)


def test_a_context_longer_than_every_shard(tmp_path: Path) -> None:
    make(tmp_path, [8, 5])
    with pytest.raises(UserError) as caught:
        dataset(tmp_path, context=8)
    text = str(caught.value)
    assert "batch.context: 8" in text and "8 tokens" in text and "p-train-000.bin" in text
    assert dataset(tmp_path, context=7).sequences == 1


def test_a_cursor_beyond_the_shards_is_refused(tmp_path: Path) -> None:
    make(tmp_path, [81])
    data = dataset(tmp_path)
    with pytest.raises(UserError, match="sequence 10 is past the end of an epoch of 10"):
        data.read_batch(Cursor(seed=1, context=8, position=10), 1)
