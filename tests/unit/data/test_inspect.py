"""inspect_path describes good shards and names the problems of bad ones."""

import json
from pathlib import Path

import numpy as np
import pytest

from data.corpus import build_corpus
from data.inspect import inspect_path
from data.shard_file import write_shard
from profiles.errors import UserError


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
