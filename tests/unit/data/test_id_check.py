"""Before a launch ids outside the vocabulary are found: everywhere if time allows, else in a sample that says so."""

from pathlib import Path

import numpy as np
import pytest

from data.dataset import PackedBinDataset, Source
from data.shards import open_shards
from profiles.errors import UserError


def dataset(root: Path, vocab: int) -> PackedBinDataset:
    return PackedBinDataset((Source("", 1.0, open_shards(root, "p", "train", vocab)),), 8, vocab, 1)


def put(root: Path, *shards: np.ndarray, dtype: str = "<u2") -> None:
    (root / "p/train").mkdir(parents=True)
    for k, ids in enumerate(shards):
        ids.astype(dtype).tofile(root / f"p/train/{k}.bin")


@pytest.mark.parametrize("position", [0, 699_999, 1_000_000, 1_499_999])
def test_one_id_outside_is_found_wherever_it_is(tmp_path: Path, position: int) -> None:
    ids = np.arange(1_500_000) % 500
    ids[position] = 512
    put(tmp_path, np.zeros(100), ids, np.ones(100))
    with pytest.raises(UserError) as caught:
        dataset(tmp_path, 512).check_ids(60)
    text = str(caught.value)
    assert text.startswith(
        f"{tmp_path}/p/train/1.bin: token {position} is id 512, outside the model's vocabulary of 512:"
    )
    assert "a vocabulary of at least 513" in text
    assert dataset(tmp_path, 513).check_ids(60) == 1_500_200


def test_without_time_a_part_is_checked_and_counted(tmp_path: Path) -> None:
    put(tmp_path, np.arange(3_000_000) % 500)
    assert 1 <= dataset(tmp_path, 512).check_ids(1e-9) <= 1 << 19


def test_ids_that_cannot_be_outside_are_not_read(tmp_path: Path) -> None:
    put(tmp_path, np.arange(3_000_000) % 65536)
    assert dataset(tmp_path, 65536).check_ids(1e-9) == 3_000_000


def test_32_bit_ids_are_checked_whatever_the_vocabulary(tmp_path: Path) -> None:
    put(tmp_path, np.full(1000, 151_936), dtype="<u4")
    with pytest.raises(UserError, match="id 151936"):
        dataset(tmp_path, 151_936).check_ids(60)
    assert dataset(tmp_path, 151_937).check_ids(60) == 1000
