"""Where a split is missing, the line names what lies there, and its command works when it is pasted into a shell."""

import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest

from data.shards import open_shards
from profiles.errors import UserError
from profiles.registry import parse_override


def put(root: Path, *names: str) -> None:
    """Write shards whose ids are the number of the name."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        np.array([number] * 3, "<u2").tofile(path)


def advice(root: Path, split: str = "train", phase: str = "owt") -> str:
    with pytest.raises(UserError) as caught:
        open_shards(root, phase, split, 4096)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def paste(line: str) -> None:
    """Run the command at the end of an advice."""
    subprocess.run(["sh", "-ec", line.partition("with: ")[2]], check=True)


def opened(root: Path, split: str, phase: str = "owt") -> list[int]:
    shards = open_shards(root, phase, split, 4096)
    return [int(shards.read(k, 0, 1)[0]) for k in range(len(shards.shards))]


FINEWEB = (*(f"fineweb_train_{k:06d}.bin" for k in range(1, 6)), "fineweb_val_000000.bin")


@pytest.mark.parametrize("place", ["owt", "."], ids=["phase", "root"])
@pytest.mark.parametrize(
    ("names", "train", "val"),
    [
        (("train.bin", "val.bin"), [0], [1]),
        (FINEWEB, [0, 1, 2, 3, 4], [5]),
        (("tiny_shakespeare_train.bin", "tiny_shakespeare_val.bin"), [0], [1]),
        (("a-test.bin", "a-train.bin", "a-valid.bin"), [1], [2]),
        (("constrained.bin", *(f"b train {k}.bin" for k in range(9))), [1, 2, 3, 4, 5, 6, 7, 8, 9], None),
        (("shard0.bin", "shard1.bin"), [0, 1], None),
        (("odd $name'.bin",), [0], None),
    ],
    ids=["nanoGPT", "fineweb", "llm.c", "validation", "pattern", "unnamed", "odd"],
)
def test_loose_files_are_linked(
    tmp_path: Path, place: str, names: tuple[str, ...], train: list[int], val: list[int] | None
) -> None:
    root = tmp_path / "my data (1)"
    put(root / place, *names)
    (root / "owt/train").mkdir(parents=True)
    line = advice(root)
    assert "make demo" not in line and str(root / place) in line
    paste(line)
    root = root.rename(tmp_path / "moved")
    assert opened(root, "train") == train
    if val is not None:
        assert opened(root, "val") == val


def test_a_validation_split_that_lies_loose_beside_a_complete_train_split(tmp_path: Path) -> None:
    put(tmp_path, "owt/train/a.bin", "owt/val.bin")
    (tmp_path / "owt/val").mkdir()
    line = advice(tmp_path, "val")
    assert "owt/train" not in line
    paste(line)
    assert opened(tmp_path, "train") == [0] and opened(tmp_path, "val") == [1]


@pytest.mark.parametrize("empty", [True, False])
def test_a_folder_with_another_name_is_linked(tmp_path: Path, empty: bool) -> None:
    put(tmp_path, "owt/training/a.bin", "owt/validation/a.bin", "owt/test/a.bin")
    if empty:
        (tmp_path / "owt/train").mkdir()
    paste(advice(tmp_path))
    assert opened(tmp_path, "train") == [0] and opened(tmp_path, "val") == [1]


def test_files_one_folder_deeper_are_linked_although_their_names_are_the_same(tmp_path: Path) -> None:
    root = tmp_path / "my data's"
    put(root, "owt/train/a b/0.bin", "owt/train/c/0.bin", "owt/train/c/1.bin", "owt/val/d/0.bin")
    for split in ("train", "val"):
        paste(advice(root, split))
    assert opened(root, "train") == [0, 1, 2] and opened(root, "val") == [3]


def settings(line: str) -> dict[str, str]:
    words = shlex.split(line.partition("use ")[2])
    assert words[::2] == ["-s"] * (len(words) // 2)
    return dict(parse_override(word) for word in words[1::2])


@pytest.mark.parametrize("name", ["my phase", "2024"])
def test_a_root_that_is_a_phase_and_another_phase_are_named_as_settings(tmp_path: Path, name: str) -> None:
    put(tmp_path, f"{name}/train/a.bin")
    assert settings(advice(tmp_path / name)) == {"data.root": str(tmp_path), "data.phase": name}
    assert settings(advice(tmp_path)) == {"data.phase": name}


def test_a_relative_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "owt/train.bin")
    monkeypatch.chdir(tmp_path)
    line = advice(Path())
    monkeypatch.chdir("/")
    paste(line)
    assert opened(tmp_path, "train") == [0]


def test_without_validation_data_a_shard_is_set_aside_or_none_is_needed(tmp_path: Path) -> None:
    put(tmp_path, "owt/train/a.bin", "other/val/a.bin")
    assert advice(tmp_path, "val").endswith("has no 'val' split; train without validation with -s val_every=0")
    put(tmp_path, "owt/train/a.bin", "owt/train/b.bin")
    line = advice(tmp_path, "val")
    assert "-s val_every=0" in line
    paste(line.partition("for it ")[2])
    assert opened(tmp_path, "train") == [0] and opened(tmp_path, "val") == [1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("owt/train/a.parquet", "1 .parquet file in"),
        ("owt/a.ds", "1 .ds file in"),
        ("corpus.jsonl.zst", "1 .jsonl.zst file in"),
        ("owt/train/a.npy", "1 .npy file; convert with: mla-tui data convert"),
    ],
)
def test_files_that_are_no_shards_are_named(tmp_path: Path, name: str, message: str) -> None:
    put(tmp_path, name)
    line = advice(tmp_path)
    assert message in line and str((tmp_path / name).parent) in line and "make demo" not in line


def test_where_nothing_lies_the_demo_is_advised(tmp_path: Path) -> None:
    for folder in ("root", "root/other", "root/owt", "root/owt/train"):
        assert "make demo" in advice(tmp_path / "root")
        (tmp_path / folder).mkdir()
    assert "make demo" in advice(tmp_path / "root")
    (tmp_path / "file").touch()
    assert "file is a file: name the folder of the phases" in advice(tmp_path / "file")
