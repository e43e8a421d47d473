"""Files are read as other programs lay them out; where a split is missing, a line names what helps, to be pasted."""

import os
import shlex
from pathlib import Path

import numpy as np
import pytest

from data.shards import open_shards
from profiles.errors import UserError
from profiles.registry import parse_override
from tui.cli import main


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


def paste(line: str) -> str:
    """Run the command at the end of an advice; return the phase that it makes."""
    words = shlex.split(line.partition("with: ")[2])
    assert words[0] == "mla-tui" and main.main(words[1:]) == 0
    return words[words.index("--phase") + 1]


def opened(root: Path, split: str, phase: str = "owt") -> list[int]:
    shards = open_shards(root, phase, split, 4096)
    return [int(shards.read(k, 0, 1)[0]) for k in range(len(shards.shards))]


FINEWEB = (*(f"fineweb_train_{k:06d}.bin" for k in range(1, 6)), "fineweb_val_000000.bin")


def settings(line: str) -> dict[str, str]:
    words = shlex.split(line.partition("use ")[2])
    assert words[::2] == ["-s"] * (len(words) // 2)
    return dict(parse_override(word) for word in words[1::2])


@pytest.mark.parametrize(
    ("names", "train", "val"),
    [
        (("train.bin", "val.bin"), [0], [1]),
        (FINEWEB, [0, 1, 2, 3, 4], [5]),
        (("tiny_shakespeare_train.bin", "tiny_shakespeare_val.bin"), [0], [1]),
        (("a-test.bin", "a-train.bin", "a-valid.bin"), [1], [2]),
        (("a-train.npy", "a-validation.npy", "a-train.json"), [0], [1]),
        (("constrained.bin", *(f"b train {k}.bin" for k in range(9))), [1, 2, 3, 4, 5, 6, 7, 8, 9], None),
        (("shard0.bin", "shard1.bin"), [0, 1], None),
        (("odd $name'.bin",), [0], None),
        (("owt-val-train-0.bin", "owt-train-val-0.bin"), [0], [1]),
        (("part-0.npy", "part-1.npy", "dev/a.npy"), [0, 1], [2]),
        (("val.npy", "tokens.npy"), [1], [0]),
        (("training/a.bin", "validation/a.bin", "test/a.bin"), [0], [1]),
        (("train/a.bin", "training/b.bin", "train-old.bin", "val.bin"), [0], [3]),
    ],
    ids=str.split("nanoGPT fineweb llm.c validation npy unnamed-too unnamed odd last dev one-named folders preferred"),
)
@pytest.mark.parametrize("empty", [True, False])
def test_files_are_read_where_other_programs_put_them(
    tmp_path: Path, names: tuple[str, ...], train: list[int] | None, val: list[int] | None, empty: bool
) -> None:
    root = tmp_path / "my data (1)"
    put(root / "owt", *names)
    (root / "owt/meta.pkl").write_bytes(
        b"cos\nsystem\n(S'touch pwned'\ntR."
    )  # beside nanoGPT's; a pickle may do anything
    if empty:
        for split in ("train", "val"):
            (root / "owt" / split).mkdir(exist_ok=True)
    for split, expected in (("train", train), ("val", val)):
        if expected is None:
            assert "\n" not in advice(root, split)
        else:
            assert opened(root, split) == expected
    assert not os.path.exists("pwned")
    settled = settings(advice(root / "owt")) if train else None
    assert settled in (None, {"data.root": str(root), "data.phase": "owt"})
    assert train is None or opened(root / "owt", "train", ".") == train


def test_the_name_of_the_phase_says_no_split(tmp_path: Path) -> None:
    put(tmp_path, "val-mix/val-mix-train-0.bin", "val-mix/val-mix-val-0.bin", "train/train.bin", "train/val.bin")
    assert [opened(tmp_path, split, "val-mix") for split in ("train", "val")] == [[0], [1]]
    assert [opened(tmp_path, split, "train") for split in ("train", "val")] == [[2], [3]]


def test_files_one_folder_deeper_are_linked_although_their_names_are_the_same(tmp_path: Path) -> None:
    root = tmp_path / "my data's"
    put(root, "owt/train/a b/0.bin", "owt/train/c/0.bin", "owt/train/c/1.bin", "owt/val/d/0.bin")
    phase = paste(advice(root, "train"))
    assert opened(root, "train", phase) == [0, 1, 2] and opened(root, "val", phase) == [3]


@pytest.mark.parametrize("name", ["my phase", "2024"])
def test_a_root_that_is_a_phase_and_another_phase_are_named_as_settings(tmp_path: Path, name: str) -> None:
    put(tmp_path, f"{name}/train/a.bin")
    assert settings(advice(tmp_path / name)) == {"data.root": str(tmp_path), "data.phase": name}
    assert settings(advice(tmp_path)) == {"data.phase": name}


def test_a_relative_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "owt/train/a/0.bin")
    monkeypatch.chdir(tmp_path)
    line = advice(Path())
    monkeypatch.chdir("/")
    assert opened(tmp_path, "train", paste(line)) == [0]


def test_without_validation_data_a_file_is_set_aside_or_none_is_needed(tmp_path: Path) -> None:
    put(tmp_path, "owt/train/a.bin", "other/val/a.bin")
    assert advice(tmp_path, "val").endswith("has no 'val' split; train without validation with -s val_every=0")
    put(tmp_path, "owt/train/a.bin", "owt/train/b[1].bin")
    line = advice(tmp_path, "val")
    assert "-s val_every=0" in line
    phase = paste(line)
    assert opened(tmp_path, "train", phase) == [0] and opened(tmp_path, "val", phase) == [1]
    put(tmp_path, "tested/train.bin", "tested/train2-train.bin", "tested/test.bin")
    assert advice(tmp_path, "val", "tested").endswith("--val test.bin")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("owt/train/a.parquet", "1 .parquet file in"),
        ("corpus.jsonl.zst", "1 .jsonl.zst file in"),
    ],
)
def test_files_that_are_no_shards_are_named(tmp_path: Path, name: str, message: str) -> None:
    put(tmp_path, name)
    line = advice(tmp_path)
    assert message in line and str((tmp_path / name).parent) in line and "data demo" not in line


def test_files_that_are_not_for_training_are_named(tmp_path: Path) -> None:
    put(tmp_path, "owt/a-test.bin", "owt/b-test.bin")
    assert advice(tmp_path).endswith(f", but a-test.bin for test; put what to train on into {tmp_path}/owt/train")


def test_where_nothing_lies_the_demo_is_advised(tmp_path: Path) -> None:
    for folder in ("root", "root/other", "root/owt", "root/owt/train"):
        assert "data demo" in advice(tmp_path / "root")
        (tmp_path / folder).mkdir()
    assert "data demo" in advice(tmp_path / "root")
    (tmp_path / "file").touch()
    assert "file is a file: name the folder of the phases" in advice(tmp_path / "file")


def test_phases_one_folder_deeper_are_named_and_not_linked_into_one(tmp_path: Path) -> None:
    put(tmp_path, "owt/b/train/0.bin", "owt/b/val/0.bin", "owt/a/train/0.bin", "owt/c/train/0.bin", "owt/d/val/0.bin")
    for phase in "abd":
        (tmp_path / "owt" / phase / "dataset.json").write_text("{}")
    line = advice(tmp_path, "val")
    assert "owt: has no 'val' split, but its folders b, d are phases; use -s" in line
    assert settings(line) == {"data.root": str(tmp_path / "owt"), "data.phase": "b"}
