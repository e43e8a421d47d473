"""The data screen and command, compared with the sequences that the trainer reads."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from data.cursor import Cursor
from engine.events.log import read_all
from engine.events.run_dir import RunDir
from engine.events.types import Edit, Rewind
from engine.runs.store import RunStore
from engine.train.edit_history import EditHistory
from engine.train.replay import data_of_step
from engine.train.run_state import RunState
from profiles.errors import UserError
from tests.unit.tui import helpers
from tests.unit.tui.helpers import on_screen, text_of
from tests.unit.tui.nano import Nano
from tui.app.app import MlaApp
from tui.app.screens.data import DataScreen
from tui.app.widgets.shard_list import ShardList
from tui.app.widgets.token_view import TokenView
from tui.cli import main

SIZES = [(60, 20), (160, 48)]


@pytest.fixture
def nano(tmp_path: Path) -> Nano:
    return Nano.make(tmp_path, train=False)


@pytest.fixture
def run(nano: Nano, store: RunStore, tmp_path: Path) -> RunDir:
    """A run of 40 steps with two edits and one rewind."""
    run, log = nano.run(store, tmp_path / "models", steps=40)
    edit: dict[str, Any] = {"id": "a", "by": "me", "ok": True, "why": ""}
    log.write(Edit(**edit, step=5, changed={"context": (32, 16)}))
    log.write(Edit(**edit, step=9, changed={"sequences": (4, 8), "accum": (1, 2)}))
    log.write(Rewind(step=12, cursor=Cursor(1, 16, 3, 7, 99).to_dict(), why=""))
    log.close()
    return run


until = partial(helpers.until, seconds=60.0)  # child processes start slowly


def test_the_screens_load_neither_torch_nor_numpy() -> None:
    script = (
        "import sys, tui.app.screens.checkpoints, tui.app.screens.data, engine.checkpoints.inventory;"
        "print([m for m in ('torch', 'numpy', 'safetensors', 'tokenizers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_the_sequences_of_a_step_are_those_of_the_trainer(run: RunDir) -> None:
    course = RunState(run.spec())
    past = EditHistory.of(event for _, event in read_all(run.log_path))
    for step in range(1, 41):
        course.replay_edits(past, step - 1)
        course.replay_rewinds(past, step - 1)
        read = data_of_step(run, step)
        assert (read.cursor, read.spec.batch) == (course.cursor, course.spec.batch), step
        course.cursor = course.read_batch()[1]
    for step in (0, 41):
        with pytest.raises(UserError, match="has the steps 1 to 40"):
            data_of_step(run, step)


@pytest.mark.parametrize("size", SIZES)
async def test_a_step_of_the_run_is_shown_as_text(run: RunDir, store: RunStore, size: tuple[int, int]) -> None:
    app = MlaApp(store)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: bool(app.screen.query_one("#runs").runs))  # type: ignore[attr-defined]
        await pilot.press("d")
        await until(pilot, lambda: "sequence 1 of" in text_of(app, "#where"))
        await until(pilot, lambda: "phase1-train" in on_screen(app, ShardList))
        await pilot.press("s", *"10", "enter")
        await until(pilot, lambda: "step 10 of 40 · sequence 1 of 8" in text_of(app, "#where"))
        read = data_of_step(run, 10)
        ids = read.shards.read(read.cursor).ids[:-1].tolist()
        await pilot.press("i")
        await until(pilot, lambda: on_screen(app, TokenView).split()[0] == str(ids[0]))
        await pilot.press("p")
        await until(pilot, lambda: "step 9 of 40 · sequence 4 of 4" in text_of(app, "#where"))
        await pilot.press("n")
        await until(pilot, lambda: "step 10 of 40 · sequence 1 of 8" in text_of(app, "#where"))
        await pilot.press("number_sign", *"9", "enter")
        await until(pilot, lambda: "choose one of 1 to 8" in text_of(app, "#message"))
        await pilot.press("q")
        await until(pilot, lambda: not isinstance(app.screen, DataScreen))


async def test_a_damaged_shard_is_reported(run: RunDir, nano: Nano, store: RunStore) -> None:
    (nano.data / "phase1" / "train" / "phase1-train-001.bin").write_bytes(b"odd")
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: bool(app.screen.query_one("#runs").runs))  # type: ignore[attr-defined]
        await pilot.press("d")
        await until(pilot, lambda: "the file is truncated" in text_of(app, "#message"))
        assert "damaged" in on_screen(app, ShardList)


async def test_missing_data_is_reported_with_how_to_get_it(run: RunDir, nano: Nano, store: RunStore) -> None:
    nano.data.rename(nano.data.with_name("elsewhere"))
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: bool(app.screen.query_one("#runs").runs))  # type: ignore[attr-defined]
        await pilot.press("d")
        await until(pilot, lambda: "data demo" in text_of(app, "#message"))
        await pilot.press("o", *"nothing", "enter")
        await until(pilot, lambda: "'nothing': not a profile" in text_of(app, "#message"))
        await pilot.press("n", "p", "i", "escape")
        await until(pilot, lambda: not isinstance(app.screen, DataScreen))


def test_the_command_shows_the_same_data(run: RunDir, nano: Nano, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["data", "show", "nano", "--step", "10", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["window"]["of"] == 8 and len(shown["window"]["ids"]) == 16
    joined = "".join(shown["window"]["texts"])
    assert "caf<C3><A9>" in joined or "return" in joined or "def" in joined
    assert [split["split"] for split in shown["splits"]] == ["train", "val"]
    assert main.main(["data", "show", str(nano.profile), "--sequence", "0"]) == 1
    assert "choose one of 1 to" in capsys.readouterr().err
    assert main.main(["data", "show", "neither"]) == 2


def test_bytes_are_shown_without_a_tokenizer(run: RunDir, nano: Nano, capsys: pytest.CaptureFixture[str]) -> None:
    (nano.data / "phase1" / "tokenizer.json").unlink()
    assert main.main(["data", "show", "nano", "--sequence", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["window"]["texts"] is None
    (nano.data / "phase1" / "dataset.json").write_text('{"vocab_size": 256}')
    assert main.main(["data", "show", "nano", "--sequence", "1", "--json"]) == 0
    window = json.loads(capsys.readouterr().out)["window"]
    assert [ord(text) if len(text) == 1 else int(text[1:-1], 16) for text in window["texts"]] == window["ids"]
