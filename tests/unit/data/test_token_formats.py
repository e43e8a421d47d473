"""Token files of other programs are read as they lie, each written here as its program writes it."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.inspect import inspect_path
from data.shards import open_shards
from profiles.errors import UserError
from tui.cli import main

Ids = np.ndarray[Any, Any]
MEGATRON_CODES = {"u1": 1, "<i2": 3, "<i4": 4, "<i8": 5, "<u2": 8}


def write_bare(path: Path, ids: Ids, dtype: str, ends: list[int]) -> None:
    """nanoGPT (data/openwebtext/prepare.py) and OLMo (a memmap, named .npy): nothing but the ids."""
    path.write_bytes(ids.astype(dtype).tobytes())


def write_numpy(path: Path, ids: Ids, dtype: str, ends: list[int]) -> None:
    """numpy.save."""
    with path.open("wb") as file:
        np.save(file, ids.astype(dtype))


def write_megatron(path: Path, ids: Ids, dtype: str, ends: list[int]) -> None:
    """Megatron-LM, megatron/core/datasets/indexed_dataset.py, _IndexWriter: one sequence a document here."""
    path.write_bytes(ids.astype(dtype).tobytes())
    lengths = np.diff([0, *ends]).astype("<i4")
    pointers = np.array([0, *ends[:-1]], "<i8") * np.dtype(dtype).itemsize
    head = b"MMIDIDX\0\0" + (1).to_bytes(8, "little") + bytes([MEGATRON_CODES[dtype]])
    counts = np.array([len(lengths), len(ends) + 1], "<u8").tobytes()
    documents = np.arange(len(ends) + 1, dtype="<i8")
    path.with_suffix(".idx").write_bytes(head + counts + lengths.tobytes() + pointers.tobytes() + documents.tobytes())


def write_datatrove(path: Path, ids: Ids, dtype: str, ends: list[int]) -> None:
    """datatrove, pipeline/tokens/tokenizer.py, TokenizedFile: ids, document ends, and a text with the width."""
    path.write_bytes(ids.astype(dtype).tobytes())
    path.with_name(path.name + ".index").write_bytes(np.array(ends, "<u8").tobytes())
    path.with_name(path.name + ".metadata").write_text(f"gpt2|{np.dtype(dtype).itemsize}\n{len(ids)}\n{len(ids)} T")


def write_llm_c(path: Path, ids: Ids, dtype: str, ends: list[int]) -> None:
    """llm.c, dev/data/data_common.py, write_datafile: 256 int32, of which three say something."""
    magic, version = {"<u2": (20240520, 1), "<u4": (20240801, 7)}[dtype]
    path.write_bytes(np.array([magic, version, len(ids), *[0] * 253], "<i4").tobytes() + ids.astype(dtype).tobytes())


FORMATS: dict[str, tuple[str, Callable[[Path, Ids, str, list[int]], None], tuple[str, ...], bool]] = {
    "llm.c": ("x.bin", write_llm_c, ("<u2", "<u4"), False),
    "npy": ("x.npy", write_numpy, ("<u2", "<i4", "<u4", "<i8", "<u8"), False),
    "megatron": ("gpt_text_document.bin", write_megatron, ("<u2", "<i4", "<i8"), True),
    "datatrove": ("00000_shuffled.ds", write_datatrove, ("<u2", "<u4"), True),
}
CASES = [(name, dtype) for name, (_, _, dtypes, _) in FORMATS.items() for dtype in dtypes]
LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=12)


def put(root: Path, form: str, dtype: str, lengths: list[int], seed: int = 0, vocab: int = 512) -> tuple[Path, Ids]:
    name, write, _, _ = FORMATS[form]
    ids = np.random.default_rng(seed).integers(0, min(vocab, 65536 if "2" in dtype else vocab), sum(lengths))
    path = root / "p/train" / name
    shutil.rmtree(path.parent, ignore_errors=True)
    path.parent.mkdir(parents=True)
    write(path, ids, dtype, [int(end) for end in np.cumsum(lengths)])
    return path, ids


def read(root: Path, vocab: int = 512) -> list[int]:
    shards = open_shards(root, "p", "train", vocab)
    return [id for k, shard in enumerate(shards.shards) for id in shards.read(k, 0, shard.tokens).tolist()]


def refused(root: Path, vocab: int = 512) -> str:
    with pytest.raises(UserError) as caught:
        open_shards(root, "p", "train", vocab)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("form", "dtype"), CASES)
def test_every_format_is_read_in_place(tmp_path_factory: pytest.TempPathFactory, form: str, dtype: str) -> None:
    root = tmp_path_factory.mktemp("formats")

    @settings(max_examples=25)
    @given(LENGTHS, st.integers(0, 1 << 32), st.sampled_from([3, 512, 65536, 151_936]))
    def round_trip(lengths: list[int], seed: int, vocab: int) -> None:
        path, ids = put(root, form, dtype, lengths, seed, vocab)
        before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
        assert read(root, vocab) == ids.tolist()
        (shard,) = open_shards(root, "p", "train", vocab).shards
        assert (shard.format, shard.dtype) == (form, np.dtype(dtype))
        assert shard.documents == (len(lengths) if FORMATS[form][3] else None)
        assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before

    round_trip()


@pytest.mark.parametrize(("form", "dtype"), CASES)
def test_a_file_of_another_size_than_it_says_is_refused(tmp_path: Path, form: str, dtype: str) -> None:
    for change in (lambda b: b[:-1], lambda b: b[:-8], lambda b: b + b"\0", lambda b: b[:20], lambda b: b""):
        path, _ = put(tmp_path, form, dtype, [30, 40])
        path.write_bytes(change(path.read_bytes()))
        assert refused(tmp_path).startswith(f"{path}: ")
        assert inspect_path(path)[0]["problems"] == [refused(tmp_path)] or path.stat().st_size < 100


@pytest.mark.parametrize("form", ["megatron", "datatrove"])
def test_a_damaged_index_is_refused_and_names_itself(tmp_path: Path, form: str) -> None:
    path, _ = put(tmp_path, form, "<u2", [30, 40])
    index = path.with_suffix(".idx") if form == "megatron" else path.with_name(path.name + ".index")
    whole = index.read_bytes()
    for cut in range(9, len(whole), 7):
        index.write_bytes(whole[:cut])
        if form == "megatron" or cut % 8:
            assert refused(tmp_path).startswith(f"{index}: ")
        else:
            assert refused(tmp_path).startswith(f"{path}: 140 bytes, and its index {index.name} says")
    index.unlink()
    os.mkfifo(index)
    assert refused(tmp_path).startswith(f"{index}: cannot be read (is a FIFO, not a regular file)")


@settings(max_examples=50)
@given(st.binary(max_size=80), st.booleans())
def test_any_index_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, headed: bool
) -> None:
    root = tmp_path_factory.mktemp("index")
    for form, head in (("megatron", b"MMIDIDX\0\0" + bytes([1, 0, 0, 0, 0, 0, 0, 0, 4])), ("datatrove", b"")):
        path, _ = put(root, form, "<u2", [4])
        index = path.with_suffix(".idx") if form == "megatron" else path.with_name(path.name + ".index")
        index.write_bytes(head * headed + data)
        try:
            read(root)
        except UserError as error:
            assert "\n" not in str(error)


def test_the_metadata_of_datatrove_must_agree(tmp_path: Path) -> None:
    path, ids = put(tmp_path, "datatrove", "<u4", [30, 40])
    metadata = path.with_name(path.name + ".metadata")
    metadata.write_text("gpt2\n70\n70 T")  # as versions write that know only 16-bit ids
    assert read(tmp_path) == ids.tolist()
    metadata.write_text("gpt2|2\n70\n70 T")
    assert "says 70 tokens" in refused(tmp_path)


@pytest.mark.parametrize("code", [2, 6, 7, 9, 255])
def test_a_type_that_is_no_type_of_ids_is_refused(tmp_path: Path, code: int) -> None:
    path, _ = put(tmp_path, "megatron", "<u2", [30, 40])
    index = path.with_suffix(".idx")
    index.write_bytes(index.read_bytes()[:17] + bytes([code]) + index.read_bytes()[18:])
    assert f"type code {code}, which is not that of token ids" in refused(tmp_path)


def test_an_index_of_another_program_is_none(tmp_path: Path) -> None:
    path, ids = put(tmp_path, "llm.c", "<u2", [30, 40])
    path.write_bytes(ids.astype("<u2").tobytes())
    path.with_suffix(".idx").write_bytes(b"something else")
    assert read(tmp_path) == ids.tolist()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones(500), "holds a NumPy array of float64, not of token ids"),
        (np.ones(500, np.int8), "holds a NumPy array of int8"),
        (np.ones(500, bool), "holds a NumPy array of bool"),
        (np.array(["a"] * 50), "holds a NumPy array of <U1"),
        (np.array([1, "x"], object), "holds a NumPy array of object"),
        (np.arange(500, dtype=">u4"), "its ids are big-endian"),
        (np.arange(500).reshape(5, 100), "shape (5, 100), not one row of ids: save it with .reshape(-1)"),
        (np.array(7), "shape ()"),
        (np.zeros(0, "<u2"), "empty shard (0 tokens)"),
        (np.zeros(5, [("a", "<u2"), ("b", "<f8")]), "not of token ids"),
    ],
    ids=str.split("float int8 bool text object big-endian two-dimensional scalar empty record"),
)
def test_an_array_of_something_else_is_refused(tmp_path: Path, array: Ids, message: str) -> None:
    path = tmp_path / "p/train/x.npy"
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=True)
    assert refused(tmp_path).startswith(f"{path}: ") and message in refused(tmp_path)


@given(st.binary(max_size=150))
def test_any_numpy_header_is_read_or_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    root = tmp_path_factory.mktemp("npy")
    (root / "p/train").mkdir(parents=True)
    (root / "p/train/x.npy").write_bytes(b"\x93NUMPY\x01\x00" + data)
    assert refused(root).startswith(f"{root}/p/train/x.npy: ")


def test_the_array_of_olmo_has_no_header(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).zipf(1.3, 3000) % 50_280
    for dtype, vocab in (("<u2", 50_304), ("<u4", 50_304), ("<u2", 100_352), ("<u4", 100_352)):
        put(tmp_path, "npy", "<u2", [5])
        write_bare(tmp_path / "p/train/x.npy", ids, dtype, [])
        assert read(tmp_path, vocab) == ids.tolist()


def test_files_that_do_not_say_their_type_are_of_the_one_that_dataset_json_names(tmp_path: Path) -> None:
    for dtype in ("uint16", "uint32", "int32", "int64"):
        put(tmp_path, "llm.c", "<u2", [3])
        (tmp_path / "p/train/x.bin").write_bytes(np.array([5, 6, 7], dtype).tobytes())
        (tmp_path / "p/dataset.json").write_text(json.dumps({"dtype": dtype}))
        assert read(tmp_path) == [5, 6, 7]


def imported(root: Path, *options: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    phase = [] if "--phase" in options else ["--phase", "p"]
    argv = ["data", "import", str(root / "source"), *phase, "--out", str(root / "out"), *options]
    code = main.main(argv)
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_an_import_links_what_lies_below_a_folder_and_records_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    for name, form in (("web", "megatron"), ("books", "datatrove")):
        put(tmp_path / name, form, "<u2", [30, 40])
        shutil.copytree(tmp_path / name / "p/train", source / "train" / name)
    (source / "validation").mkdir()
    write_bare(source / "validation/a.bin", np.random.default_rng(0).zipf(1.3, 900) % 500, "<u4", [])
    tokenizer = Path("data/shards/phase1/tokenizer.json")
    options = ("--tokenizer", str(tokenizer)) if tokenizer.exists() else ()
    code, text = imported(tmp_path, *options, capsys=capsys)
    assert code == 0 and "train: 2 files, 140 tokens" in text and "datatrove uint16, megatron uint16" in text
    phase = tmp_path / "out/p"
    found = json.loads((phase / "dataset.json").read_text())
    assert found["splits"] == {"train": {"tokens": 140, "documents": 4}, "val": {"tokens": 900}}
    assert found["sources"] == [{"path": str(source)}] and found["dtype"] == "uint32"
    if options:
        assert found["eot_id"] == 0
        assert found["vocab_size"] == 4096 and (phase / "tokenizer.json").read_bytes() == tokenizer.read_bytes()
    train, val = (open_shards(tmp_path / "out", "p", split, 4096).shards for split in ("train", "val"))
    assert [shard.documents for shard in train] == [2, 2] and val[0].tokens == 900
    assert all(shard.path.is_symlink() for shard in (*train, *val))
    assert imported(tmp_path, capsys=capsys)[0] == 1 and (phase / "dataset.json").exists()  # it is there already


def test_an_import_links_files_whose_links_would_have_one_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(("train/b.bin", "train-b.bin", "x.bin", "x.npy", "x.idx"), 1):
        path = tmp_path / "source" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        ids = np.arange(500 * number, dtype="<u2") % 300
        np.save(path, ids) if path.suffix == ".npy" else ids.tofile(path)
    (tmp_path / "source/x.idx").write_text("of no data set")
    code, text = imported(tmp_path, capsys=capsys)
    assert code == 0 and f"train: 4 files, {500 * 10} tokens" in text
    assert sum(shard.tokens for shard in open_shards(tmp_path / "out", "p", "train", 4096).shards) == 500 * 10


def test_an_import_names_the_first_wrong_id_and_makes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "source/x.npy"
    path.parent.mkdir()
    ids = np.arange(500) % 300
    ids[123] = -1
    np.save(path, ids)
    code, text = imported(tmp_path, capsys=capsys)
    assert code == 1 and f"{path}: token 123 is -1, which is no token id" in text
    for options, message in (
        (("--dtype", "float32"), "--dtype float32: is not one of"),
        (("--val", "*.ds"), "no token file below"),
        (("--val", "*"), "holds 1 token file, none of them for training"),
        (("--phase", "../x"), "leads out"),
        (("--tokenizer", str(path)), "x.npy"),
        (("--eot", "</s>"), "--eot </s>: needs --tokenizer"),
    ):
        code, text = imported(tmp_path, *options, capsys=capsys)
        assert code and message in text and len(text.splitlines()) == 1
    for phase in ("one", "two"):
        (tmp_path / "source" / phase).mkdir()
        np.arange(500, dtype="<u2").tofile(tmp_path / "source" / phase / "x.bin")
        content = json.dumps({"model": {"vocab": {phase: 0}}})
        (tmp_path / "source" / phase / "tokenizer.json").write_text(content)
    path.unlink()
    code, text = imported(tmp_path, capsys=capsys)
    assert code == 1 and f"{path.parent}/one and {path.parent}/two have different tokenizers" in text
    for phase in ("one", "two"):
        shutil.rmtree(tmp_path / "source" / phase)
    code, text = imported(tmp_path, "--val", "*", capsys=capsys)
    assert code == 1 and f"{path.parent}: holds no token file (" in text
    np.save(path, abs(ids))
    code, text = imported(tmp_path, "--phase", "p" * 255, capsys=capsys)  # too long a name: found as it is written
    assert code == 1 and "cannot be written (File name too long)" in text
    assert not (tmp_path / "out").exists()


def test_the_header_of_numpy_is_that_of_numpy_itself(tmp_path: Path) -> None:
    """Version 2, of a header of more than 64 KiB, and one that is padded otherwise."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.arange(50, dtype="<u2"), version=(2, 0))
    put(tmp_path, "npy", "<u2", [5])
    (tmp_path / "p/train/x.npy").write_bytes(file.getvalue())
    assert read(tmp_path) == list(range(50))
