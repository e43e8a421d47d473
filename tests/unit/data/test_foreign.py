"""Files of another kind are refused by name, and ids that do not say their type are read as the type they show."""

import gzip
import io
import json
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.dataset import PackedBinDataset, Source
from data.inspect import inspect_path
from data.shards import open_shards
from profiles.errors import UserError


def zipf(vocab: int, count: int = 3000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).zipf(1.3, count) % vocab


def put(root: Path, data: bytes, name: str = "p/train/x.bin") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def read(root: Path, vocab: int) -> list[int]:
    shards = open_shards(root, "p", "train", vocab)
    return [id for k, shard in enumerate(shards.shards) for id in shards.read(k, 0, shard.tokens).tolist()]


def refused(root: Path, vocab: int = 4096) -> str:
    with pytest.raises(UserError) as caught:
        open_shards(root, "p", "train", vocab)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def megatron_index(code: int) -> bytes:
    return b"MMIDIDX\0\0" + (1).to_bytes(8, "little") + bytes([code]) + bytes(16)


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"x" * 50)
    return file.getvalue()


SAFETENSORS = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (megatron_index(8), "the index of a Megatron-LM data set"),
        (zipped(), "a zip archive"),
        (pickle.dumps({"model": list(range(100))}, 4), "a Python pickle"),
        (pickle.dumps(list(range(100)), 5), "a Python pickle"),
        (gzip.compress(bytes(1000)), "compressed with gzip"),
        (b"\x28\xb5\x2f\xfd" + bytes(50), "compressed with zstd"),
        (b"GGUF" + bytes(60), "a model in GGUF"),
        (b"PAR1" + bytes(60), "a Parquet file"),
        (np.array([20240326, 5, 1024, 50257], "<i4").tobytes() + bytes(2000), "a model of llm.c"),
        (np.array([20240520, 1, 500], ">i4").tobytes() + bytes(2000), "a big-endian shard of llm.c"),
        (np.array([20240522, 1, 10042], "<i4").tobytes() + bytes(2000), "an evaluation set of llm.c"),
        (len(SAFETENSORS).to_bytes(8, "little") + SAFETENSORS + bytes(8), "a model in safetensors"),
        (b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>", "a web page (HTML)"),
        (b"\n<HTML><head><title>Sign in</title></head></HTML>", "a web page (HTML)"),
        (json.dumps({"error": "Repository not found"}).encode(), "JSON"),
        ("Whan that Aprille with his shoures soote, œuvre\n".encode() * 3000, "text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "a Git LFS pointer"),
    ],
    ids=str.split(
        "index zip pickle4 pickle5 gzip zstd gguf parquet model swapped eval safetensors doctype html json text lfs"
    ),
)
def test_a_file_of_another_kind_is_named(tmp_path: Path, data: bytes, kind: str) -> None:
    path = put(tmp_path, data)
    for vocab in (4096, 100_000):
        assert refused(tmp_path, vocab).startswith(f"{path}: is {kind}")
    (entry,) = inspect_path(path)
    assert kind in entry["problems"][0]


@pytest.mark.parametrize("vocab", [5, 256, 512, 4096, 50257, 65536])
def test_wider_ids_than_the_model_needs_are_read_as_what_they_are(tmp_path: Path, vocab: int) -> None:
    ids = zipf(vocab)
    for dtype in ("<u4", "<i4", "<i8", "<u8"):
        path = put(tmp_path, ids.astype(dtype).tobytes())
        assert read(tmp_path, vocab) == ids.tolist()
        (entry,) = inspect_path(path)
        assert entry["tokens"] == len(ids) and not entry["problems"]


@pytest.mark.parametrize("vocab", [65_537, 70_000, 128_256, 151_936, 262_144])
def test_other_widths_than_a_large_vocabulary_needs(tmp_path: Path, vocab: int) -> None:
    """A vocabulary that is padded above 65,536 says nothing of the files: uint16 read as uint32 is another text."""
    for highest, dtype in ((vocab, "<i8"), (50_257, "<u2"), (65, "<u2"), (vocab, "<u4")):
        ids = zipf(highest) + (highest == 65)
        put(tmp_path, ids.astype(dtype).tobytes())
        assert read(tmp_path, vocab) == ids.tolist()


@pytest.mark.parametrize("dtype", ["<i4", "<i8"])
def test_padding_of_minus_100_is_named_with_its_place(tmp_path: Path, dtype: str) -> None:
    ids = zipf(50257)
    ids[7::10] = -100
    path = put(tmp_path, ids.astype(dtype).tobytes())
    shards = open_shards(tmp_path, "p", "train", 50257)
    data = PackedBinDataset((Source("", 1.0, shards),), 20, 50257, 1)
    for check in (lambda: data.check_ids(1), lambda: data.read_batch(data.initial_cursor(), data.sequences)):
        with pytest.raises(UserError, match=rf"{path}: token \d*7 is -100, which is no token id"):
            check()


@pytest.mark.parametrize(("dtype", "vocab"), [(">u2", 4096), (">u2", 50257), (">u4", 4096), (">u4", 151_936)])
def test_big_endian_ids_are_refused(tmp_path: Path, dtype: str, vocab: int) -> None:
    path = put(tmp_path, zipf(vocab).astype(dtype).tobytes())
    assert refused(tmp_path, vocab).startswith(f"{path}: its ids are big-endian")


def test_files_of_a_split_that_do_not_say_their_type_have_one(tmp_path: Path) -> None:
    ids = zipf(512)
    put(tmp_path, ids.astype("<u4").tobytes(), "p/train/a.bin")
    put(tmp_path, ids[:5].astype("<u4").tobytes(), "p/train/b.bin")  # too few to show their type
    assert read(tmp_path, 512) == [*ids, *ids[:5]]
    put(tmp_path, ids.astype("<i8").tobytes(), "p/train/b.bin")
    assert "b.bin: looks like int64 ids, and a.bin beside it like uint32" in refused(tmp_path, 512)


def test_ids_late_in_the_first_million_show_their_type(tmp_path: Path) -> None:
    """Padding first: the first 64 KiB show nothing."""
    ids = np.concatenate([np.zeros(100_000, np.int64), zipf(512, 400_000)])
    put(tmp_path, ids.astype("<u4").tobytes())
    assert read(tmp_path, 512) == ids.tolist()


@given(
    st.sampled_from([2, 4, 5, 28, 256, 4096, 65536]),
    st.sampled_from([3, 64, 128, 500, 3000]),
    st.integers(0, 1 << 32),
    st.booleans(),
)
def test_ids_of_the_width_of_the_model_are_never_refused(
    tmp_path_factory: pytest.TempPathFactory, vocab: int, count: int, seed: int, uniform: bool
) -> None:
    ids = np.random.default_rng(seed).integers(0, vocab, count) if uniform else zipf(vocab, count, seed)
    root = tmp_path_factory.mktemp("real")
    for dtype, size in (("<u2", 65536), ("<u4", 151_936)):
        put(root, ids.astype(dtype).tobytes())
        assert read(root, size) == ids.tolist()


@pytest.mark.parametrize(
    "ids",
    [
        np.zeros(5000),
        np.arange(5000),
        np.arange(5000) % 2,
        np.where(np.arange(5000) % 16 == 0, 999, 0),
        np.concatenate([np.zeros(4000), zipf(4096, 1000)]),
        np.arange(30) * 2 % 60,
    ],
    ids=["zeros", "counting", "alternating", "spikes", "padded", "few"],
)
def test_strange_ids_of_the_right_width_are_not_refused(tmp_path: Path, ids: np.ndarray) -> None:
    put(tmp_path, ids.astype("<u2").tobytes())
    assert read(tmp_path, 4096) == ids.tolist()


def test_a_type_that_dataset_json_names_is_believed(tmp_path: Path) -> None:
    ids = np.stack([zipf(4096), zipf(4096) % 2], 1).ravel()  # text with a channel of zeros and ones between
    put(tmp_path, ids.astype("<u2").tobytes())
    assert read(tmp_path, 4096) != ids.tolist()
    put(tmp_path, b'{"dtype": "uint16"}', "p/dataset.json")
    assert read(tmp_path, 4096) == ids.tolist()
