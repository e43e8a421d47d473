"""inspect_path describes good shards and names the problems of bad ones."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from data.corpus import build_corpus
from data.inspect import inspect_path
from data.shard_file import write_shard
from profiles.errors import UserError
from tui.cli.main import main


@pytest.fixture
def phase(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    for k in range(60):
        (source / f"module_{k}.py").write_text(f"value_{k} = {k}\n")
    return build_corpus(tmp_path / "shards", vocab_size=258, source=source)


def test_root_phase_and_file_give_the_same_entries(phase: Path) -> None:
    whole = inspect_path(phase.parent)
    assert json.loads(json.dumps(whole)) == whole
    assert whole == inspect_path(phase)
    assert whole == [inspect_path(Path(entry["path"]))[0] for entry in whole]
    assert [Path(entry["path"]).name for entry in whole] == ["phase1-train-000.bin", "phase1-val-000.bin"]
    train = whole[0]
    assert (train["format"], train["dtype"], train["problems"]) == ("llm.c", "uint16", [])
    assert train["bytes"] == 1024 + 2 * train["tokens"]
    assert train["sampled"] == train["tokens"]
    assert train["peek"].startswith("value_0 = 0\n<|endoftext|>value_10 = 10")
    assert len(train["first_ids"]) == 16


def test_a_large_shard_is_sampled(tmp_path: Path) -> None:
    ids = np.zeros(3_000_000, np.uint32)
    ids[-1] = 99_999
    write_shard(tmp_path / "x.bin", ids)
    (entry,) = inspect_path(tmp_path / "x.bin")
    assert entry["sampled"] == 16 * 65536
    assert entry["highest_id"] == 99_999
    assert (entry["dtype"], entry["tokens"], entry["peek"]) == ("uint32", 3_000_000, None)


def test_a_problem_of_one_file_does_not_stop_the_others(phase: Path) -> None:
    (phase / "train/a.bin").write_bytes(b"abc")
    (phase / "train/b.bin").write_bytes(b"")
    (phase / "train/c.bin").write_bytes(np.array([1, 300], "<u2").tobytes())
    (phase / "train/d.bin").mkdir()
    (phase / "train/e.bin").symlink_to(phase / "gone")
    found = {Path(e["path"]).name: e for e in inspect_path(phase)}
    messages = {
        "a.bin": "3 bytes",
        "b.bin": "0 bytes",
        "c.bin": "id 300",
        "d.bin": "is a directory, not a regular file",
        "e.bin": "No such file",
    }
    for name, expected in messages.items():
        assert len(found[name]["problems"]) == 1
        assert expected in found[name]["problems"][0]
    assert found["c.bin"]["format"] == "bare"
    assert found["c.bin"]["highest_id"] == 300
    assert found["a.bin"]["tokens"] is None
    assert found["phase1-train-000.bin"]["problems"] == []


def test_a_broken_manifest_and_tokenizer_are_problems(phase: Path) -> None:
    (phase / "dataset.json").write_text("{")
    (phase / "tokenizer.json").write_text("{}")
    (entry,) = inspect_path(phase / "val")
    assert ["is not valid JSON" in p or "is not a valid tokenizer" in p for p in entry["problems"]] == [True, True]
    assert entry["tokens"] > 0


def test_nothing_to_inspect(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        inspect_path(tmp_path / "gone")
    with pytest.raises(UserError, match=r"holds no token file \(\.bin, \.npy, \.ds\)"):
        inspect_path(tmp_path)


def test_documents_and_bytes_a_token(phase: Path) -> None:
    manifest = json.loads((phase / "dataset.json").read_text())
    for entry, split in zip(inspect_path(phase), ("train", "val"), strict=True):
        counted = manifest["splits"][split]
        assert entry["documents"] == counted["documents"]
        assert entry["bytes_per_token"] == counted["bytes"] / counted["tokens"]
        assert entry["document_tokens"] == entry["tokens"]
        assert entry["median_document"] <= entry["longest_document"] < 20
        assert entry["dtype_from"] == "header"


def test_what_says_the_type(tmp_path: Path) -> None:
    def source(ids: np.ndarray, vocab_size: int = 0) -> str:
        (tmp_path / "x.bin").write_bytes(ids.tobytes())
        (entry,) = inspect_path(tmp_path / "x.bin", vocab_size)
        return f"{entry['dtype']} from {entry['dtype_from']}"

    few = np.arange(8, dtype="<u2")
    assert source(few) == "uint16 from nothing: assumed"
    assert source(few, 100) == "uint16 from the vocabulary"
    assert source(np.arange(1000, dtype="<u4")) == "uint32 from the ids"
    (tmp_path / "dataset.json").write_text('{"dtype": "uint32"}')
    assert source(few) == "uint32 from dataset.json"


def test_ids_that_are_none(phase: Path) -> None:
    for path, value in (("train/a.npy", -100), ("train/b.npy", 1 << 40)):
        np.save(phase / path, np.array([value] * 10))
        (entry,) = inspect_path(phase / path)
        assert f"holds {value}, which is no token id" in entry["problems"][0]


def test_documents_by_an_index(tmp_path: Path) -> None:
    ids = np.arange(1, 21, dtype="<u2")
    (tmp_path / "x.ds").write_bytes(ids.tobytes())
    (tmp_path / "x.ds.index").write_bytes(np.array([3, 4, 20], "<u8").tobytes())
    lengths, ends = np.array([3, 1, 6, 10], "<i4"), np.array([0, 1, 2, 4], "<i8")  # the last document has two sequences
    head = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, len(lengths), len(ends))
    starts = np.array([0, 6, 8, 20], "<i8")
    (tmp_path / "y.idx").write_bytes(head + lengths.tobytes() + starts.tobytes() + ends.tobytes())
    (tmp_path / "y.bin").write_bytes(ids.tobytes())
    for entry in inspect_path(tmp_path):
        assert (entry["documents"], entry["longest_document"], entry["median_document"]) == (3, 16, 3)
        assert entry["dtype_from"] == "index"
    (tmp_path / "y.idx").write_bytes(head + lengths.tobytes() + starts.tobytes() + np.array([0, 1, 2, 9]).tobytes())
    assert "y.idx: its documents are damaged" in inspect_path(tmp_path / "y.bin")[0]["problems"][0]


def test_a_profile_counts_sequences_and_epochs(phase: Path, capsys: pytest.CaptureFixture[str]) -> None:
    profile = ["--profile", str(phase / "p.toml")]
    (phase / "p.toml").write_text('extends = "cpu_demo"\n[batch]\ncontext = 16\n')
    assert main(["data", "inspect", str(phase), *profile]) == 0
    lines = capsys.readouterr().out
    assert "  dtype       uint16 (from header)\n" in lines
    assert "  bytes/token " in lines
    assert "median 13 tokens" in lines
    assert f"{phase}: warning: data: " in lines
    assert "sequences of 17 tokens; 300 steps read " in lines
    assert main(["data", "inspect", str(phase), *profile, "--json"]) == 0
    train, val = json.loads(capsys.readouterr().out)
    assert train["usage"] == val["usage"]
    assert f"data: {train['sequences']} sequences" in train["usage"]


def test_files_of_a_folder_are_read_as_a_run_reads_them(tmp_path: Path) -> None:
    """A file too short to show its type has that of the others; other types side by side are a problem."""
    folder = tmp_path / "p" / "train"
    folder.mkdir(parents=True)
    (np.arange(70_000, dtype="<u4") % 500).tofile(folder / "a.bin")
    np.array([1, 2], "<u4").tofile(folder / "b.bin")
    long, short = inspect_path(tmp_path / "p", 512)
    assert [(entry["dtype"], entry["dtype_from"]) for entry in (long, short)] == [
        ("uint32", "the ids"),
        ("uint32", "the files beside it"),
    ]
    assert (short["tokens"], short["problems"]) == (2, [])
    (np.arange(70_000, dtype="<i8") % 500).tofile(folder / "c.bin")
    line = "c.bin: looks like int64 ids, and a.bin beside it like uint32: put files of different types into different"
    for entry in inspect_path(tmp_path / "p", 512):
        assert [line in problem for problem in entry["problems"]] == [True], entry
    assert main(["data", "inspect", str(tmp_path / "p")]) == 1
