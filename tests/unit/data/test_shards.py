"""Packed files: every layout, and the errors for damaged files."""

import gc
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data.open_files import MAX_OPEN
from data.shard_file import write_shard
from data.shards import open_shards
from data.summary import dataset_summary
from data.tokenizer import load_tokenizer
from profiles.errors import UserError


def header(magic: int, version: int, tokens: int) -> bytes:
    return np.array([magic, version, tokens, *[0] * 253], "<i4").tobytes()


def put(root: Path, data: bytes, name: str = "train/p-train-000.bin") -> Path:
    path = root / "p" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def read(root: Path, vocab: int = 4096, split: str = "train") -> list[list[int]]:
    shards = open_shards(root, "p", split, vocab)
    return [shards.read(k, 0, shard.tokens).tolist() for k, shard in enumerate(shards.shards)]


def refused(root: Path, vocab: int = 4096, split: str = "train") -> str:
    with pytest.raises(UserError) as caught:
        open_shards(root, "p", split, vocab)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("data", "vocab"),
    [
        (np.array([5, 6, 7], "<u2").tobytes(), 65536),
        (np.array([5, 6, 7], "<u4").tobytes(), 65537),
        (header(20240520, 1, 3) + np.array([5, 6, 7], "<u2").tobytes(), 65537),
        (header(20240801, 7, 3) + np.array([5, 6, 7], "<u4").tobytes(), 4096),
        (header(20240801, 1, 3) + np.array([5, 6, 7], "<u4").tobytes(), 4096),
    ],
    ids=["bare16", "bare32", "header16", "header32-llm.c", "header32-version1"],
)
def test_every_layout_is_read(tmp_path: Path, data: bytes, vocab: int) -> None:
    put(tmp_path, data)
    assert read(tmp_path, vocab) == [[5, 6, 7]]


@given(hnp.arrays(st.sampled_from([np.uint16, np.uint32]), st.integers(1, 50)))
def test_written_shards_are_read_back(tmp_path_factory: pytest.TempPathFactory, ids: np.ndarray) -> None:
    root = tmp_path_factory.mktemp("written")
    write_shard(put(root, b""), ids)
    assert read(root) == [ids.tolist()]


def test_dataset_json_names_the_dtype_of_bare_files(tmp_path: Path) -> None:
    put(tmp_path, np.array([5, 70000], "<u4").tobytes())
    put(tmp_path, json.dumps({"dtype": "uint32"}).encode(), "dataset.json")
    assert read(tmp_path, 4096) == [[5, 70000]]


def test_the_manifests_vocabulary_decides_the_dtype(tmp_path: Path) -> None:
    put(tmp_path, np.array([5, 6], "<u2").tobytes())
    put(tmp_path, json.dumps({"vocab_size": 50257}).encode(), "dataset.json")
    assert read(tmp_path, 100_000) == [[5, 6]]


def test_shards_are_ordered_by_name(tmp_path: Path) -> None:
    for k in (2, 0, 1):
        put(tmp_path, np.array([k], "<u2").tobytes(), f"train/p-train-00{k}.bin")
    put(tmp_path, b"odd", "train/._p-train-000.bin")
    put(tmp_path, b"odd", "train/notes.txt")
    assert read(tmp_path) == [[0], [1], [2]]


def test_flat_layout_and_validation_buckets(tmp_path: Path) -> None:
    put(tmp_path, np.array([1], "<u2").tobytes(), "p-train-000.bin")
    put(tmp_path, np.array([2], "<u2").tobytes(), "p-val-000.bin")
    assert read(tmp_path) == [[1]]
    assert read(tmp_path, split="val") == [[2]]
    put(tmp_path, np.array([3], "<u2").tobytes(), "val/code/p-val-000.bin")
    assert read(tmp_path, split="val/code") == [[3]]


def test_more_shards_than_open_files_are_read(tmp_path: Path) -> None:
    count = 3 * MAX_OPEN
    gc.collect()
    for k in range(count):
        put(tmp_path, np.array([k, k + 1, k + 2], "<u2").tobytes(), f"train/{k:03d}.bin")
    before = len(os.listdir("/dev/fd"))
    shards = open_shards(tmp_path, "p", "train", 4096)
    for _ in range(2):
        assert [shards.read(k, 1, 2).tolist() for k in range(count)] == [[k + 1, k + 2] for k in range(count)]
    assert len(os.listdir("/dev/fd")) <= before + MAX_OPEN
    del shards
    assert len(os.listdir("/dev/fd")) <= before  # those of other tests may have been closed


def test_threads_read_more_shards_than_are_kept_open(tmp_path: Path) -> None:
    count = 2 * MAX_OPEN
    for k in range(count):
        put(tmp_path, np.array([k, k + 1], "<u2").tobytes(), f"train/{k:03d}.bin")
    shards = open_shards(tmp_path, "p", "train", 4096)

    def read_all(first: int) -> bool:
        order = [(first + k * 7) % count for k in range(2 * count)]
        return all(shards.read(k, 0, 2).tolist() == [k, k + 1] for k in order)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read_all, range(8)))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def _overwritten(path: Path) -> None:
    path.write_bytes(bytes(reversed(path.read_bytes())))


def _replaced(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(bytes(reversed(path.read_bytes())))
    other.rename(path)


def _removed(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("read_before", [True, False])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_cut, "has 100 bytes, and had 1000 when it was opened"),
        (_overwritten, "has other content than when it was opened"),
        (_replaced, "has other content than when it was opened"),
        (_removed, "cannot be read any more (No such file or directory)"),
    ],
)
def test_a_shard_that_changes_while_in_use(
    tmp_path: Path, change: Callable[[Path], None], message: str, read_before: bool
) -> None:
    ids = np.arange(500, dtype="<u2")
    path = put(tmp_path, ids.tobytes())
    shards = open_shards(tmp_path, "p", "train", 4096)
    if read_before:
        shards.read(0, 0, 1)
    change(path)
    if read_before and change in (_replaced, _removed):  # the original is still open, so it goes on being read
        assert shards.read(0, 400, 100).tolist() == ids[400:].tolist()
        return
    with pytest.raises(UserError) as caught:
        shards.read(0, 400, 100)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "put" in str(caught.value) and "\n" not in str(caught.value)


def test_a_shard_that_is_only_touched_is_the_same(tmp_path: Path) -> None:
    path = put(tmp_path, np.arange(5000, dtype="<u2").tobytes())
    shards = open_shards(tmp_path, "p", "train", 4096)
    for modified in (1, 2):
        os.utime(path, (modified, modified))
        assert shards.read(0, 4998, 2).tolist() == [4998, 4999]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes"),
        (b"abc", "3 bytes"),
        (header(20240520, 1, 0), "0 tokens"),
        (header(20240520, 2, 1) + b"ab", "version 2"),
        (header(20240520, 1, 3) + b"abcd", "3 uint16 tokens (6 bytes), the file holds 4 bytes"),
        (header(20240520, 1, 1) + b"abcd", "1 uint16 tokens (2 bytes), the file holds 4 bytes"),
        (header(20240801, 7, 2) + b"abcd", "2 uint32 tokens (8 bytes), the file holds 4 bytes"),
        (header(20240801, 7, 2)[:100], "100 bytes"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    path = put(tmp_path, data)
    text = refused(tmp_path)
    assert str(path) in text
    assert message in text


def test_odd_bytes_of_bare_uint32(tmp_path: Path) -> None:
    put(tmp_path, b"abcdef")
    assert "6 bytes are not a whole number of 4-byte uint32 tokens" in refused(tmp_path, 100_000)


def test_an_unreadable_file(tmp_path: Path) -> None:
    (tmp_path / "p/train/p-train-000.bin").mkdir(parents=True)
    assert "p-train-000.bin: cannot be read (is a directory, not a regular file)" in refused(tmp_path)


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    fifo = put(tmp_path, b"ab").with_name("z.bin")
    os.mkfifo(fifo)
    assert f"{fifo}: cannot be read (is a FIFO, not a regular file)" in refused(tmp_path)
    fifo.unlink()
    (tmp_path / "p/train/null.bin").symlink_to("/dev/null")
    assert "null.bin: cannot be read (is a device, not a regular file; it is a link to /dev/null)" in refused(tmp_path)
    (tmp_path / "p/train/null.bin").unlink()
    for name in ("dataset.json", "tokenizer.json"):
        os.mkfifo(tmp_path / "p" / name)
    assert "dataset.json: cannot be read: is a FIFO, not a regular file" in refused(tmp_path)
    with pytest.raises(UserError, match=r"tokenizer\.json: cannot be read: is a FIFO"):
        load_tokenizer(tmp_path / "p" / "tokenizer.json")


def test_a_dangling_link(tmp_path: Path) -> None:
    put(tmp_path, b"ab").with_name("p-train-001.bin").symlink_to(tmp_path / "gone")
    expected = f"p-train-001.bin: cannot be read (No such file or directory; it is a link to {tmp_path / 'gone'})"
    assert expected in refused(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
@pytest.mark.parametrize("denied", ["", "p", "p/train", "p/train/p-train-000.bin"])
def test_what_may_not_be_read_is_named(denied: str) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # pytest's own may be opened by root alone
        root = Path(folder)
        put(root, b"ab")
        for path in (root, *root.rglob("*")):
            path.chmod(0o755)
        (root / denied).chmod(0o700)
        os.seteuid(65534)
        try:
            line, problems = refused(root), dataset_summary(root, "p", 4096, 8)["problems"]
        finally:
            os.seteuid(0)
    assert line.startswith(f"{root / denied}: cannot be") and "(Permission denied)" in line
    assert line in problems


def test_missing_root_phase_split_and_files_are_refused_with_a_remedy(tmp_path: Path) -> None:
    root = tmp_path / "shards"
    assert f"{root} is not a directory" in refused(root)
    (root / "other").mkdir(parents=True)  # no phase: it holds no token files
    assert "has no 'p': pack text with " in refused(root)
    (root / "other" / "val").mkdir()
    (root / "other" / "val" / "0.bin").write_bytes(bytes(6))
    assert "has no 'p' (its phases: other)" in refused(root)
    shutil.rmtree(root / "other")
    (root / "p").mkdir()
    for split in ("train", "val"):
        text = refused(root, split=split)
        assert f"no '{split}' split" in text
        assert "mla-tui data demo" in text
        assert f"data pack TEXT --out {root} --phase p," in text
    (root / "p/train").mkdir()
    assert "holds no token file" in refused(root)


def test_a_vocabulary_larger_than_the_models(tmp_path: Path) -> None:
    put(tmp_path, b"ab")
    manifest = put(tmp_path, json.dumps({"vocab_size": 32768}).encode(), "dataset.json")
    text = refused(tmp_path, 4096)
    assert str(manifest) in text
    assert "32768" in text and "4096" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[1]", "[1] is not a JSON object"),
        ('{"dtype": "int8"}', "'int8' is not one of uint16, uint32, int32, int64"),
        ('{"dtype": []}', "dtype: []"),
        ('{"vocab_size": "big"}', "vocab_size: 'big' is not an integer from 1 up"),
        ('{"vocab_size": true}', "vocab_size: True is not an integer from 1 up"),
        (f'{{"vocab_size": {10**30}}}', "an integer has more than 64 bits"),
    ],
)
def test_a_broken_dataset_json(tmp_path: Path, text: str, message: str) -> None:
    put(tmp_path, b"ab")
    path = put(tmp_path, text.encode(), "dataset.json")
    error = refused(tmp_path)
    assert str(path) in error
    assert message in error


def test_a_run_that_never_validates_needs_no_split_for_it(tmp_path: Path) -> None:
    put(tmp_path, np.arange(100, dtype="<u2").tobytes())
    validating, other = (dataset_summary(tmp_path, "p", 4096, 8, validates)["problems"] for validates in (True, False))
    assert "no 'val' split" in validating[0] and not other
