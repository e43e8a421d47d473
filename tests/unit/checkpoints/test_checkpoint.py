"""A checkpoint is complete or absent, and damage is found before a tensor is used."""

from __future__ import annotations

import errno
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.checkpoints import checkpoint, hold, retention
from profiles.errors import UserError
from tests.unit.disk_faults import fault_at

torch.set_num_threads(1)
Tensors = dict[str, dict[str, Any]]


def state(value: float = 1.0) -> Tensors:
    return {
        "model": {"w": torch.full((3, 5), value), "b": torch.arange(4, dtype=torch.bfloat16)},
        "optimizer": {"exp_avg/w": torch.randn(3, 5), "rng/cpu": torch.get_rng_state(), "step": torch.ones(1)},
    }


def put(out: Path, step: int, value: float = 1.0) -> Path:
    return checkpoint.save(out, step, state(value), {"spec": {}, "cursor": {"position": 7}}, None)[0]


def flip(path: Path, byte: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


def test_a_saved_checkpoint_loads_bit_for_bit(tmp_path: Path) -> None:
    saved = state()
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text("{}")
    path, size = checkpoint.save(tmp_path / "out", 20, saved, {"cursor": {"position": 7}}, tokenizer)
    loaded, metadata = checkpoint.load(path)
    for part, tensors in saved.items():
        assert loaded[part].keys() == tensors.keys()
        assert all(torch.equal(loaded[part][name], tensor) for name, tensor in tensors.items())
        assert all(loaded[part][name].dtype == tensor.dtype for name, tensor in tensors.items())
    assert (metadata["step"], metadata["cursor"]) == (20, {"position": 7})
    assert (path / "tokenizer.json").read_text() == "{}"
    files = [p for p in path.iterdir() if p.name != "manifest.json"]
    assert size == sum(p.stat().st_size for p in files)
    assert checkpoint.load(path, ("model",))[0].keys() == {"model"}


def test_latest_follows_each_save_and_no_hidden_file_is_left(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path) is None
    first = put(tmp_path, 5)
    assert checkpoint.latest(tmp_path) == first
    second = put(tmp_path, 10)
    assert checkpoint.latest(tmp_path) == second
    assert checkpoint.steps(tmp_path) == [5, 10]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ckpt_step_10", "ckpt_step_5", "latest"]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    put(tmp_path, 5, 1.0)
    path = put(tmp_path, 5, 2.0)
    assert checkpoint.load(path)[0]["model"]["w"][0, 0] == 2.0


def test_what_a_killed_process_left_is_not_listed_and_is_removed(tmp_path: Path) -> None:
    put(tmp_path, 5)
    half = tmp_path / ".ckpt_step_10.999"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"x")
    assert checkpoint.steps(tmp_path) == [5]
    put(tmp_path, 15)
    assert not half.exists()


@pytest.mark.parametrize("error", [0, errno.EIO])
def test_what_an_interrupted_deletion_left_goes_with_the_next(tmp_path: Path, error: int) -> None:
    for number in range(1, 20):
        for step in (5, 10, 15):
            put(tmp_path, step)
        reached, why = fault_at(number, lambda: retention.delete(tmp_path, 5), error)
        assert not error or 5 in checkpoint.steps(tmp_path) or "cannot be deleted" in why or not hidden(tmp_path)
        assert not why.startswith("not a"), why
        retention.delete(tmp_path, 10)
        assert not hidden(tmp_path)
        if not reached:
            break
    assert number > 5


def hidden(folder: Path) -> list[Path]:
    return list(folder.glob(".ckpt*"))


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "trainer.json"])
def test_a_flipped_bit_in_any_file_is_named(tmp_path: Path, name: str) -> None:
    path = put(tmp_path, 5)
    size = (path / name).stat().st_size
    for byte in {0, size // 3, size // 2, size - 1}:
        for bit in (0, 5):
            flip(path / name, byte, bit)
            with pytest.raises(UserError) as caught:
                checkpoint.load(path)
            # trainer.json is parsed first, so it may be refused before its checksum is compared.
            assert name in str(caught.value)
            assert str(path) in str(caught.value)
            flip(path / name, byte, bit)
    checkpoint.load(path)


def test_the_newest_intact_one_is_found_and_damaged_ones_are_renamed(tmp_path: Path) -> None:
    assert checkpoint.newest_intact(tmp_path, pytest.fail) is None
    for step in (5, 10, 15):
        put(tmp_path, step)
    assert checkpoint.newest_intact(tmp_path, pytest.fail) == tmp_path / "ckpt_step_15"
    flip(tmp_path / "ckpt_step_15" / "model.safetensors", 100, 1)
    (tmp_path / "ckpt_step_10" / "manifest.json").unlink()
    reported: list[str] = []
    assert checkpoint.newest_intact(tmp_path, reported.append) == tmp_path / "ckpt_step_5"
    assert len(reported) == 2 and "ckpt_step_15/model.safetensors: is not what was saved" in reported[0]
    assert checkpoint.steps(tmp_path) == [5]
    assert {p.name for p in tmp_path.glob("*.damaged")} == {"ckpt_step_10.damaged", "ckpt_step_15.damaged"}


def test_where_none_is_intact_nothing_is_renamed(tmp_path: Path) -> None:
    for step in (5, 10):
        flip(put(tmp_path, step) / "trainer.json", 0, 0)
    with pytest.raises(UserError, match="no checkpoint of this run is intact"):
        checkpoint.newest_intact(tmp_path, pytest.fail)
    assert checkpoint.steps(tmp_path) == [5, 10]


def test_every_flipped_bit_in_the_manifest_is_found(tmp_path: Path) -> None:
    path = put(tmp_path, 5)
    manifest = path / "manifest.json"
    refused = 0
    for byte in range(manifest.stat().st_size):
        flip(manifest, byte, byte % 7)
        try:
            checkpoint.verify(path)
        except UserError as error:
            refused += 1
            assert str(path) in str(error)
            assert "take an earlier checkpoint" in str(error)
        flip(manifest, byte, byte % 7)
    assert refused == manifest.stat().st_size


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "trainer.json", "manifest.json"])
@pytest.mark.parametrize("how", ["missing", "short", "empty"])
def test_a_missing_or_cut_file_is_named(tmp_path: Path, name: str, how: str) -> None:
    path = put(tmp_path, 5)
    file = path / name
    if how == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1] if how == "short" else b"")
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        checkpoint.load(path)


FULL_DISK = """
import resource, signal, sys, torch
from pathlib import Path
from engine.checkpoints import checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
out, limit = Path(sys.argv[1]), int(sys.argv[2])
small = {"model": {"w": torch.ones(10)}, "optimizer": {"m": torch.ones(10)}}
checkpoint.save(out, 5, small, {}, None)
large = {"model": {"w": torch.ones(100_000)}, "optimizer": {"m": torch.ones(10)}}
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1))
try:
    checkpoint.save(out, 10, large, {}, None)
except checkpoint.CheckpointError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [0, 300_000])
def test_a_full_disk_leaves_the_old_checkpoint_and_nothing_half_written(tmp_path: Path, limit: int) -> None:
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path), str(limit)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{tmp_path}/ckpt_step_10: ")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ckpt_step_5", "latest"]
    newest = checkpoint.latest(tmp_path)
    assert newest == tmp_path / "ckpt_step_5"
    checkpoint.load(newest)


def test_a_save_that_fails_behind_its_checkpoint_says_that_it_is_there(tmp_path: Path) -> None:
    (tmp_path / "latest" / "x").mkdir(parents=True)
    said = r"ckpt_step_5: is there and whole, but its folder cannot be written: Is a directory$"
    with pytest.raises(checkpoint.CheckpointError, match=said):
        put(tmp_path, 5)
    assert checkpoint.steps(tmp_path) == [5] and checkpoint.load(tmp_path / "ckpt_step_5")


def test_a_directory_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(checkpoint.CheckpointError, match="ckpt_step_5"):
        put(tmp_path / "file", 5)


@pytest.mark.parametrize(
    ("keep", "best", "left"),
    [(1, None, [50]), (2, 10, [10, 40, 50]), (2, 50, [40, 50]), (9, None, [10, 20, 30, 40, 50]), (1, 33, [50])],
)
def test_retention_keeps_the_newest_and_the_best(tmp_path: Path, keep: int, best: int | None, left: list[int]) -> None:
    for step in (10, 20, 30, 40, 50):
        (tmp_path / f"ckpt_step_{step}").mkdir()
    retention.apply_retention(tmp_path, keep, best)
    assert checkpoint.steps(tmp_path) == left


def test_retention_keeps_what_another_process_reads_until_it_is_read(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        (tmp_path / f"ckpt_step_{step}").mkdir()
    with hold.held(checkpoint.path_of_step(tmp_path, 1)) as there:
        retention.apply_retention(tmp_path, 1, None)
        assert there and checkpoint.steps(tmp_path) == [1, 3]
    retention.apply_retention(tmp_path, 1, None)
    assert checkpoint.steps(tmp_path) == [3]
    with hold.held(checkpoint.path_of_step(tmp_path, 1)) as there:
        assert not there


@given(st.sets(st.integers(0, 30), min_size=1), st.integers(1, 5), st.integers(0, 30), st.integers(0, 30))
def test_retention_never_deletes_the_best_or_the_one_at_latest(
    held: set[int], keep: int, best: int, pointed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        for step in held:
            (out / f"ckpt_step_{step}").mkdir()
        (out / "latest").write_text(f"ckpt_step_{pointed}\n")
        retention.apply_retention(out, keep, best)
        newest = pointed if pointed in held else max(held)
        assert set(checkpoint.steps(out)) == {*sorted(held)[-keep:], newest, *({best} & held)}
        assert checkpoint.latest(out) == out / f"ckpt_step_{newest}"


def test_a_replaced_checkpoint_counts_until_the_new_one_is_in_place(tmp_path: Path) -> None:
    old = put(tmp_path, 5, 1.0)
    replaced = old.rename(tmp_path / "ckpt_step_5.replaced")  # as left by a process that died between two renames
    assert checkpoint.steps(tmp_path) == [5]
    assert checkpoint.latest(tmp_path) == checkpoint.find(str(tmp_path)) == replaced
    assert checkpoint.newest_intact(tmp_path, pytest.fail) == replaced
    put(tmp_path, 6)
    assert checkpoint.steps(tmp_path) == [5, 6]
    assert checkpoint.load(old)[0]["model"]["w"][0, 0] == 1.0


@pytest.mark.parametrize("pointer", [None, b"", b"ckpt_step_99\n", b"../elsewhere\n", b"\xff\xfe", b"\x00"])
def test_without_a_good_pointer_the_highest_step_is_the_latest(tmp_path: Path, pointer: bytes | None) -> None:
    put(tmp_path, 9)
    put(tmp_path, 10)
    put(tmp_path, 8)
    assert checkpoint.latest(tmp_path) == tmp_path / "ckpt_step_8"  # the newest, not the highest
    (tmp_path / "latest").unlink()
    if pointer is not None:
        (tmp_path / "latest").write_bytes(pointer)
    assert checkpoint.latest(tmp_path) == tmp_path / "ckpt_step_10"


def test_find_accepts_a_checkpoint_or_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "a", 5)
    assert checkpoint.find(str(path)) == checkpoint.find(str(tmp_path / "a")) == path
    monkeypatch.chdir(tmp_path)
    assert checkpoint.find("a/ckpt_step_5") == path


def test_find_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ckpt_step_4: no such checkpoint"):
        checkpoint.find(str(tmp_path / "ckpt_step_4"))
    with pytest.raises(UserError, match="is not a checkpoint of mla-tui"):
        checkpoint.find(str(tmp_path))
