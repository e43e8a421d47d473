"""Files of other programs are refused by name, ids of another width on evidence, and real shards never."""

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

from data.convert import ORIGINAL
from data.inspect import inspect_path
from data.shards import open_shards
from profiles.errors import UserError
from tui.cli import main


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


def npy(ids: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, ids)
    return file.getvalue()


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
        (np.array([20240522, 1, 10042], "<i4").tobytes() + bytes(2000), "an evaluation set of llm.c"),
        (len(SAFETENSORS).to_bytes(8, "little") + SAFETENSORS + bytes(8), "a model in safetensors"),
        (b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>", "a web page (HTML)"),
        (b"\n<HTML><head><title>Sign in</title></head></HTML>", "a web page (HTML)"),
        (json.dumps({"error": "Repository not found"}).encode(), "JSON"),
        ("Whan that Aprille with his shoures soote, œuvre\n".encode() * 3000, "text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "a Git LFS pointer"),
    ],
    ids=str.split("index zip pickle4 pickle5 gzip zstd gguf parquet model eval safetensors doctype html json text lfs"),
)
def test_a_file_of_another_kind_is_named(tmp_path: Path, data: bytes, kind: str) -> None:
    path = put(tmp_path, data)
    for vocab in (4096, 100_000):
        assert refused(tmp_path, vocab).startswith(f"{path}: is {kind}")
    (entry,) = inspect_path(path)
    assert kind in entry["problems"][0]


@pytest.mark.parametrize("vocab", [5, 256, 512, 4096, 50257, 65536])
def test_wider_ids_than_the_model_needs_are_refused_and_converted(tmp_path: Path, vocab: int) -> None:
    ids = zipf(vocab)
    for dtype, bits in (("<u4", 32), ("<i4", 32), ("<i8", 64), ("<u8", 64)):
        path = put(tmp_path, ids.astype(dtype).tobytes())
        message, _, line = refused(tmp_path, vocab).partition(": convert it with: ")
        assert message.startswith(f"{path}: looks like {bits}-bit ids read as 16-bit ones")
        assert line == f"mla-tui data convert {path.parent}"
        assert inspect_path(path)[0]["problems"] == [refused(tmp_path, vocab)]
        assert main.main(line.split()[1:]) == 0
        assert read(tmp_path, vocab) == ids.tolist()
        original = path.with_name(path.name + ORIGINAL)
        assert original.read_bytes() == ids.astype(dtype).tobytes()
        original.unlink()


def test_other_widths_than_a_large_vocabulary_needs(tmp_path: Path) -> None:
    for ids, dtype, bits in ((zipf(150_000), "<i8", 64), (zipf(50257), "<u2", 16)):
        put(tmp_path, ids.astype(dtype).tobytes())
        assert f"looks like {bits}-bit ids read as 32-bit ones" in refused(tmp_path, 151_936)
        assert main.main(["data", "convert", str(tmp_path)]) == 0
        assert read(tmp_path, 151_936) == ids.tolist()
        next(tmp_path.rglob(f"*{ORIGINAL}")).unlink()
    put(tmp_path, zipf(150_000).astype("<u4").tobytes())
    assert read(tmp_path, 151_936) == zipf(150_000).tolist()


def test_padding_of_minus_100_is_seen_and_not_converted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = zipf(50257)
    ids[7::10] = -100
    put(tmp_path, ids.astype("<i4").tobytes())
    assert "looks like 32-bit ids" in refused(tmp_path)
    assert main.main(["data", "convert", str(tmp_path)]) == 1
    assert "token 7 is -100" in capsys.readouterr().err


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
    assert "looks like 32-bit ids" in refused(tmp_path)
    put(tmp_path, b'{"dtype": "uint16"}', "p/dataset.json")
    assert read(tmp_path, 4096) == ids.tolist()


@pytest.mark.parametrize("dtype", ["<u2", "<i4", "<i8"])
def test_numpy_arrays_are_recognized_and_converted(tmp_path: Path, dtype: str) -> None:
    ids = zipf(512)
    path = put(tmp_path, npy(ids.astype(dtype).reshape(30, 100)))
    line = refused(tmp_path).partition("convert it with: ")[2]
    assert f"{path}: is a NumPy array (.npy), not a shard" in refused(tmp_path)
    assert main.main(line.split()[1:]) == 0
    assert read(tmp_path, 512) == ids.tolist()


def test_files_named_npy_are_converted_with_and_without_their_header(tmp_path: Path) -> None:
    ids = zipf(512)
    put(tmp_path, npy(ids.astype("<u2")), "p/train/a.npy")
    put(tmp_path, ids.astype("<u4").tobytes(), "p/train/b.npy")
    assert "mla-tui data convert" in refused(tmp_path)
    assert main.main(["data", "convert", str(tmp_path / "p")]) == 0
    assert read(tmp_path, 512) == [*ids, *ids]
    assert {path.name for path in (tmp_path / "p/train").iterdir()} == {"a.npy", "a.bin", "b.npy", "b.bin"}


@pytest.mark.parametrize(("code", "dtype"), [(8, "<u2"), (4, "<i4"), (5, "<i8")])
def test_the_index_of_megatron_tells_the_type(tmp_path: Path, code: int, dtype: str) -> None:
    ids = np.arange(10)  # too few to tell it from the ids
    put(tmp_path, ids.astype(dtype).tobytes())
    put(tmp_path, megatron_index(code), "p/train/x.idx")
    if dtype != "<u2":
        assert "looks like" in refused(tmp_path)
        assert main.main(["data", "convert", str(tmp_path)]) == 0
    assert read(tmp_path, 512) == ids.tolist()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.npy", npy(np.ones(5)), "holds a float64 array"),
        ("x.npy", npy(np.array([1, 2], object)), "cannot be read"),
        ("x.npy", npy(np.arange(100))[:200], "cannot be read"),
        ("x.bin", np.arange(10, dtype="<u2").tobytes(), "do not show their type"),
        ("x.bin", b"", "0 bytes"),
        ("x.bin", zipf(512).astype("<u4").tobytes() + b"a", "not a whole number of 4-byte ids"),
    ],
)
def test_what_cannot_be_converted_is_left_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, data: bytes, message: str
) -> None:
    path = put(tmp_path, data, name)
    assert main.main(["data", "convert", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert str(path) in error and message in error and len(error.splitlines()) == 1
    assert [file.name for file in tmp_path.iterdir()] == [name] and path.read_bytes() == data


def test_an_earlier_original_is_never_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, zipf(512).astype("<u4").tobytes(), "x.bin")
    put(tmp_path, b"precious", f"x.bin{ORIGINAL}")
    assert main.main(["data", "convert", str(tmp_path)]) == 1
    assert "exists; move it away" in capsys.readouterr().err
    assert (tmp_path / f"x.bin{ORIGINAL}").read_bytes() == b"precious"
    assert main.main(["data", "convert", str(tmp_path / "gone")]) == 1
