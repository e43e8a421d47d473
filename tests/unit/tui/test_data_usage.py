"""Commands and form say what a run reads of its data: sequences, epochs, unused tokens, or why nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from textual.widgets import Static

from data.dtypes import UINT16
from data.shard_file import Shard
from data.usage import usage_of
from engine.runs.store import RunStore
from tests.unit.tui.helpers import text_of, until
from tests.unit.tui.nano import PROFILE
from tui.app.app import MlaApp
from tui.app.screens.data import DataScreen
from tui.app.screens.new_run import NewRunScreen, ProfileList
from tui.cli.main import main
from tui.text.data_usage import describe_usage

SHORT = (
    "warning: data: 1 sequence of 33 tokens; 40 steps read 160 epochs; "
    "6,007 of 6,040 tokens unused (200 of 201 shards too short)"
)


@pytest.fixture
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A profile whose train split has one sequence in 201 shards; a shard also for validation."""
    for name, tokens in (*((f"train/{k:03d}", 30) for k in range(200)), ("train/z", 40), ("val/z", 40)):
        path = tmp_path / "shards/phase1" / f"{name}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([len(name), 0]) * tokens)  # val differs from train
    folder = tmp_path / "config/mla-tui/profiles"
    folder.mkdir(parents=True)
    text = PROFILE.replace("steps = 3\n", "steps = 40\n") + f"[data]\nroot = {json.dumps(str(tmp_path / 'shards'))}\n"
    (folder / "short.toml").write_text(text)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("MLA_TUI_HOME", str(tmp_path / "home"))
    return folder / "short.toml"


def shard(tokens: int, beginning: int) -> Shard:
    return Shard(Path("x.bin"), UINT16, tokens, 0, 0, beginning)


@pytest.mark.parametrize(
    ("train", "steps", "line"),
    [
        ([shard(300_000_001, 1)], 1, "data: 4,687,500 sequences of 65 tokens; 1 step read less than 0.001 epochs"),
        (
            [shard(6500, 1)],
            83,
            "data: 101 sequences of 65 tokens; 83 steps read 0.82 epochs; 35 of 6,500 tokens unused",
        ),
        ([shard(6401, 1)], 100, "data: 100 sequences of 65 tokens; 100 steps read 1 epoch"),
        ([shard(6401, 1)], 400, "data: 100 sequences of 65 tokens; 400 steps read 4 epochs"),
        ([shard(6401, 1)], 500, "warning: data: 100 sequences of 65 tokens; 500 steps read 5 epochs"),
        (
            [shard(6401, 1), shard(800, 2), shard(64, 3), shard(64, 3)],
            1,
            "data: 112 sequences of 65 tokens; 1 step read 0.0089 epochs; 159 of 7,329 tokens unused "
            "(2 of 4 shards too short)",
        ),
        (
            [shard(6401, 1), shard(6401, 1), shard(6401, 2)],
            30,
            "warning: data: 300 sequences of 65 tokens; 30 steps read 0.1 epochs; 1 shard the same as an earlier one",
        ),
        (
            [shard(6401, 1), shard(641, 9)],
            11,
            "warning: data: 110 sequences of 65 tokens; 11 steps read 0.1 epochs; 1 shard of val also in train",
        ),
    ],
    ids=["large", "tail", "once", "often", "too often", "short", "copies", "leak"],
)
def test_the_line(train: list[Shard], steps: int, line: str) -> None:
    assert describe_usage(usage_of(train, [shard(641, 9)], 64, steps), steps) == line


def test_plan_and_data_show_say_it(short: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "-p", "short"]) == 0
    assert SHORT in capsys.readouterr().out.replace("\n", " ")
    assert main(["plan", "-p", "short", "--json", "-s", "steps=10"]) == 0
    data = json.loads(capsys.readouterr().out)["data"]
    assert (data["sequences"], data["epochs"], data["unused"], data["short"]) == (1, 40, 6007, 200)
    assert main(["plan", "-p", "short", "-s", "steps=100", "-s", "stop_step=10"]) == 0
    assert "10 steps read 40 epochs" in capsys.readouterr().out.replace("\n", " ")
    assert main(["data", "show", "short"]) == 0
    assert SHORT in capsys.readouterr().out.splitlines()


def test_plan_says_why_a_launch_would_be_refused(short: Path, capsys: pytest.CaptureFixture[str]) -> None:
    problem = "batch.context: 64 is longer than a shard"
    for args in ([], ["--json"]):
        assert main(["plan", "-p", "short", "-s", "context=64", *args]) == 0
        out, err = capsys.readouterr()
        assert err.startswith(f"mla-tui: {problem}") and len(err.splitlines()) == 1
    assert json.loads(out)["data"]["problem"].startswith(problem)


def test_files_that_are_not_looked_for_are_counted(short: Path, capsys: pytest.CaptureFixture[str]) -> None:
    phase = short.parents[3] / "shards/phase1"
    (phase / "train/part2").mkdir()
    for name in ("train/part2/a.bin", "train/part2/b.bin", "phase1-train-000.bin"):
        (phase / name).write_bytes(bytes(80))
    assert main(["data", "show", "short"]) == 0
    assert f"{SHORT}; 3 token files below or beside the folder train not read" in capsys.readouterr().out.splitlines()


def test_shards_that_an_unfinished_copy_left_out_are_counted(short: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = dict.fromkeys(("train/000.bin", "train/201.bin", "val/201.bin"), "0" * 64)
    (short.parents[3] / "shards/phase1/dataset.json").write_text(json.dumps({"sha256": listed}))
    assert main(["data", "show", "short"]) == 0
    said = "1 shard listed in dataset.json missing (see: mla-tui data verify)"
    assert f"{SHORT}; {said}" in capsys.readouterr().out.splitlines()


def test_launch_says_it_beside_the_id(
    short: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("engine.runs.launch.ensure_supervisor", lambda run: None)
    assert main(["launch", "-p", "short", "-s", f"out={tmp_path / 'models'}"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1 and SHORT in err.splitlines()


async def test_the_form_says_it_and_follows_what_is_entered(short: Path, store: RunStore) -> None:
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, NewRunScreen))
        profiles = app.screen.query_one(ProfileList)
        profiles.move(profiles.names.index("short"))
        await until(pilot, lambda: text_of(app, "#data") == SHORT, seconds=60)
        assert app.screen.query_one("#data", Static).has_class("warns")
        await pilot.press("tab", "tab", "tab", *"64")
        await until(pilot, lambda: "batch.context: 64 is longer than a shard" in text_of(app, "#data"), seconds=60)
        assert app.screen.query_one("#data", Static).has_class("problem")


async def test_the_data_screen_warns(short: Path, store: RunStore) -> None:
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        app.push_screen(DataScreen("short"))
        await until(pilot, lambda: SHORT in text_of(app, "#message"), seconds=60)


def test_data_show_finds_ids_outside_the_vocabulary(short: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shard = short.parents[3] / "shards/phase1/train/z.bin"
    shard.write_bytes((300).to_bytes(2, "little") * 40)
    assert main(["data", "show", "short"]) == 1
    expected = f"{shard}: token 0 is id 300, outside the model's vocabulary of 256"
    assert expected in capsys.readouterr().err
    assert main(["plan", "-p", "short"]) == 0
    assert expected in capsys.readouterr().err


def test_shards_that_end_in_zeros_are_named(short: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a copy leaves that was cut off after its file had been given its size."""
    shard = short.parents[3] / "shards/phase1/train/zz.bin"
    text = bytes(byte for id in range(250) for byte in (id, 0)) * 20
    shard.write_bytes(text + bytes(8192))
    assert main(["data", "show", "short"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "read" in line]
    assert line.startswith("warning: data: ")
    assert line.endswith("; 1 shard ending in one id alone, as an unfinished copy does: zz.bin")
    shard.write_bytes(text)
    assert main(["data", "show", "short"]) == 0
    assert "one id alone" not in capsys.readouterr().out


def test_counts_that_are_not_those_of_the_shards_are_named(short: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By launch and plan, which read the same line, as by data show."""
    counts = {"train": {"tokens": 6041}, "val": {"tokens": 40, "bytes": 5000}}
    (short.parents[3] / "shards/phase1/dataset.json").write_text(json.dumps({"splits": counts}))
    said = f"{SHORT}; dataset.json miscounts tokens of train and bytes of val (see: mla-tui data verify)"
    assert main(["data", "show", "short"]) == 0
    assert said in capsys.readouterr().out.splitlines()
    assert main(["plan", "-p", "short"]) == 0
    assert said in capsys.readouterr().out.replace("\n", " ")
    assert main(["data", "verify", "short"]) == 1
    found = capsys.readouterr()
    assert "splits.train.tokens is 6041" in found.out + found.err
