"""The checkpoints screen and command, with checkpoints that a trainer wrote."""

from __future__ import annotations

import asyncio
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from textual.pilot import Pilot
from textual.widgets import Button, Input

from engine.checkpoints.evals import EvalResult, add_results
from engine.events.log import LogWriter
from engine.events.run_dir import RunDir
from engine.events.types import Checkpoint, Edit, Start, State, Step, Val
from engine.host.files import write_json
from engine.host.struct_json import to_dict
from engine.runs.store import RunStore
from tests.unit.checkpoints.facts import edit_facts
from tests.unit.tui import helpers
from tests.unit.tui.helpers import text_of
from tests.unit.tui.nano import Nano
from tui.app.app import MlaApp
from tui.app.screens.checkpoints import CheckpointsScreen
from tui.app.screens.confirm import ConfirmScreen
from tui.app.screens.monitor import MonitorScreen
from tui.app.widgets.bars import Heading
from tui.app.widgets.checkpoint_list import CheckpointList
from tui.app.widgets.prompt import Prompt
from tui.app.widgets.text_pane import TextPane
from tui.cli import main


@pytest.fixture(scope="session")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Nano:
    return Nano.make(tmp_path_factory.mktemp("nano"))


@pytest.fixture
def run(nano: Nano, store: RunStore, tmp_path: Path) -> RunDir:
    """A finished run with its own copy of the checkpoints."""
    shutil.copytree(nano.out, tmp_path / "models" / "nano")
    run, log = nano.run(store, tmp_path / "models")
    log.write(Start(plan={}, params=1, device="cpu", versions={}, resumed_from=None))
    for step in (1, 2, 3):
        log.write(Step(step=step, loss=6.5 - step, lr=1e-3, grad_norm=1.0, tok_s=1.0, step_s=1.0))
        if step == 2:
            log.write(Val(step=2, loss=4.75, bucket="val", tokens=1))
        log.write(
            Checkpoint(
                id="a" if step == 2 else None, step=step, path="", bytes=1, seconds=1.0, stall_s=0.0, ok=True, why=""
            )
        )
    log.write(State(phase="finished", reason=""))
    log.close()
    return run


until = partial(helpers.until, seconds=60.0)  # child processes start slowly


def lines_of(app: MlaApp) -> list[str]:
    found = app.screen.query(CheckpointList)
    return [found.first().render_line(y).text for y in range(found.first().size.height)] if found else []


async def listed(app: MlaApp, pilot: Pilot[Any], size: int = 3) -> CheckpointList:
    """Open the screen from the list of runs and wait for its rows."""
    await until(pilot, lambda: bool(app.screen.query_one("#runs").runs))  # type: ignore[attr-defined]
    await pilot.press("o")
    await until(pilot, lambda: isinstance(app.screen, CheckpointsScreen) and len(_listed(app)) == size)
    return app.screen.query_one(CheckpointList)


def _listed(app: MlaApp) -> list[Any]:
    found = app.screen.query(CheckpointList)
    return found.first().checkpoints if found else []


async def test_each_line_combines_the_log_and_the_files(run: RunDir, store: RunStore) -> None:
    (folder(run) / "ckpt_step_1" / "model.safetensors").write_bytes(b"cut")
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await listed(app, pilot)
        _, third, second, first = lines_of(app)[:4]
        assert "~4.750" in third  # it was not validated itself
        assert "3.500" in third and "last step" in third and "newest" in third and "complete" in third
        assert "4.500" in second and " 4.750" in second and "requested" in second and "best" in second
        assert "every 1" in first and "damaged" in first
        await pilot.press("end", "t")
        await until(pilot, lambda: "not what was saved" in text_of(app, "#message"))
        assert not app.screen.query_one(Prompt).display


async def test_a_run_that_was_continued_under_its_name_shows_its_own_and_where_it_began(
    run: RunDir, store: RunStore
) -> None:
    for step in (1, 2):
        edit_facts(folder(run) / f"ckpt_step_{step}", lambda facts: facts.update(run="20260101-000000"))
    spec = json.loads((run.path / "spec.json").read_text())
    start = {**spec["start"], "resume": str(folder(run) / "ckpt_step_2")}
    write_json(run.path / "spec.json", {**spec, "start": start})
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await listed(app, pilot, size=2)
        _, own, began = lines_of(app)[:3]
        assert "newest" in own and "last step" in own
        assert "start" in began and "best" in began
        await pilot.press("j")
        await until(pilot, lambda: "of run 20260101-000000, the start of this one" in text_of(app, "#message"))
        heading = app.screen.query_one(Heading).render_line(0).text
        assert "2 checkpoints, " in heading and heading.endswith(" · 1 more of other runs ")


async def test_an_evaluation_made_meanwhile_is_shown(run: RunDir, store: RunStore) -> None:
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await listed(app, pilot)
        metrics: dict[str, int | float] = {"acc": 0.25, "acc_norm": 0.312}
        result = EvalResult(name="arc.jsonl", format="arc", metrics=metrics, examples=4)
        add_results(folder(run) / "ckpt_step_3", [result])
        await until(pilot, lambda: any(one.evals for one in _listed(app)))
        await until(pilot, lambda: "arc.jsonl acc_norm 0.312" in text_of(app, "#message"))


async def test_verifying_finds_a_flipped_byte(run: RunDir, store: RunStore) -> None:
    weights = folder(run) / "ckpt_step_3" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await listed(app, pilot)
        assert "complete" in lines_of(app)[1]
        await pilot.press("v")
        await until(pilot, lambda: "damaged" in lines_of(app)[1])
        await pilot.press("j", "v")
        await until(pilot, lambda: "verified" in lines_of(app)[2])


async def test_checkpoints_that_were_saved_and_are_gone_are_not_called_never_saved(
    run: RunDir, store: RunStore
) -> None:
    saved = {"checkpoint": str(folder(run) / "ckpt_step_3"), "at": run.log_path.stat().st_size}
    write_json(run.state_path, {**to_dict(run.state()), **saved})
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await listed(app, pilot)
        shutil.rmtree(folder(run))
        await until(pilot, lambda: "the checkpoints of this run are missing; mount" in text_of(app, "#message"))
        assert "saved are not there" in "".join(lines_of(app))


async def test_why_a_child_process_gave_nothing_is_said(run: RunDir, store: RunStore) -> None:
    def sampling() -> list[psutil.Process]:
        return [child for child in psutil.Process().children() if "sample" in child.cmdline()]

    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await listed(app, pilot)
        await pilot.press("t", "enter")
        await until(pilot, lambda: bool(sampling()))
        sampling()[0].kill()
        await until(pilot, lambda: text_of(app, "#message") == "the command was ended by SIGKILL")
        await pilot.press("escape", "t")
        app.screen.query_one("#prompt-text", Input).value = "x" * 200_000  # an argument of a program is shorter
        await pilot.press("enter")
        await until(pilot, lambda: "cannot be started: Argument list too long" in text_of(app, "#message"))


async def test_a_sample_streams_from_a_child_process(run: RunDir, store: RunStore) -> None:
    app = MlaApp(store)
    async with app.run_test(size=(100, 30)) as pilot:
        await listed(app, pilot)
        await pilot.press("t", *"def")
        await until(pilot, lambda: "--prompt=def -n 120" in text_of(app, "#command"))
        await pilot.press("tab", *"7", "enter")
        await until(pilot, lambda: app.screen.query_one(TextPane).text.startswith("def"))
        await until(pilot, lambda: text_of(app, "#message").startswith("7 tokens"))
        await pilot.press("escape")
        assert not app.screen.query_one(TextPane).display


async def test_escape_stops_the_child_process(run: RunDir, store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    children = []
    start = asyncio.create_subprocess_exec

    async def noticed(*args: Any, **options: Any) -> Any:
        children.append(await start(*args, **options))
        return children[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", noticed)
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await listed(app, pilot)
        await pilot.press("t", "enter")
        await until(pilot, lambda: bool(children))
        await pilot.press("D")
        await until(pilot, lambda: "a command is running" in text_of(app, "#message"))
        await pilot.press("escape")
        await until(pilot, lambda: children[0].returncode is not None)
        assert children[0].returncode != 0 and text_of(app, "#message") == "stopped"


async def test_an_export_needs_a_new_folder_or_a_new_file(
    run: RunDir, store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "old.gguf").touch()
    app = MlaApp(store)
    async with app.run_test(size=(160, 30)) as pilot:
        await listed(app, pilot)
        await pilot.press("e", *"old.gguf", "enter")
        await until(pilot, lambda: "old.gguf: exists; name a new file" in text_of(app, "#message"))
        await pilot.press("ctrl+u", *"full", "enter")
        await until(pilot, lambda: "is not empty; choose a new directory" in text_of(app, "#message"))
        app.screen.query_one("#prompt-text", Input).value = "x" * 300
        await pilot.press("enter")
        await until(pilot, lambda: "xxx': File name too long" in text_of(app, "#message"))
        await pilot.press("end", "ctrl+u", *"new", "enter")
        await until(pilot, lambda: "written to " in text_of(app, "#message"))
    assert (tmp_path / "new" / "config.json").is_file()


async def test_the_newest_and_the_best_checkpoint_are_not_deleted(run: RunDir, store: RunStore) -> None:
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await listed(app, pilot)
        await pilot.press("D")
        await until(pilot, lambda: "is the newest" in text_of(app, "#message"))
        await pilot.press("j", "D")
        await until(pilot, lambda: "lowest validation loss" in text_of(app, "#message"))
        for answer in (["enter"], ["tab", "enter"]):
            await pilot.press("end", "D")
            await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
            assert isinstance(app.focused, Button) and app.focused.id == "cancel"
            await pilot.press(*answer)
            await until(pilot, lambda: isinstance(app.screen, CheckpointsScreen))
            assert (folder(run) / "ckpt_step_1").exists() or answer != ["enter"]
        await until(pilot, lambda: len(_listed(app)) == 2)
    assert sorted(p.name for p in folder(run).glob("ckpt*")) == ["ckpt_step_2", "ckpt_step_3"]


async def test_a_checkpoint_that_a_new_run_started_from_is_not_deleted(
    run: RunDir, nano: Nano, store: RunStore, tmp_path: Path
) -> None:
    first = folder(run) / "ckpt_step_1"
    young, log = nano.run(store, tmp_path / "other", phase="running")
    log.close()
    spec = json.loads((young.path / "spec.json").read_text())
    (young.path / "spec.json").write_text(json.dumps({**spec, "start": {"name": "young", "resume": str(first)}}))
    app = MlaApp(store, run.id)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, MonitorScreen))
        await pilot.press("o")
        await until(pilot, lambda: len(_listed(app)) == 3)
        await pilot.press("end", "D")
        await until(pilot, lambda: "run young started from it" in text_of(app, "#message"))
    assert first.is_dir()


async def test_resuming_launches_what_the_command_shows(
    run: RunDir, store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched: list[tuple[Any, dict[str, Any]]] = []

    def launch(store: RunStore, spec: Any, **options: Any) -> RunDir:
        launched.append((spec, options))
        return run

    monkeypatch.setattr("engine.runs.launch.launch", launch)
    app = MlaApp(store)
    async with app.run_test(size=(160, 24)) as pilot:
        await listed(app, pilot)
        await pilot.press("r", *"again", "tab", "3", "enter")
        await until(pilot, lambda: "is at step 3; write a larger number" in text_of(app, "#message"))
        await pilot.press("9")
        path = str(folder(run) / "ckpt_step_3")
        await until(pilot, lambda: "-s steps=39 --name again" in text_of(app, "#command"))
        assert f"mla-tui launch --resume {path}" in text_of(app, "#command")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, MonitorScreen))
    spec, options = launched[0]
    assert spec.train.steps == 39 and options == {"name": "again", "resume": Path(path)}


async def test_the_path_goes_to_the_clipboard(run: RunDir, store: RunStore) -> None:
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await listed(app, pilot)
        await pilot.press("C")
        await until(pilot, lambda: app.clipboard == str(folder(run) / "ckpt_step_3"))


async def test_a_run_that_was_cut_off_is_not_told_to_save(nano: Nano, store: RunStore, tmp_path: Path) -> None:
    cut_off, log = nano.run(store, tmp_path / "models")
    log.write(State(phase="running", reason=""))
    log.close()
    write_json(cut_off.state_path, {**to_dict(cut_off.state()), "phase": "running", "trainer": None})
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "nano" in helpers.on_screen(app, "#runs"))
        await pilot.press("o")
        await until(pilot, lambda: "the run was cut off, q goes back" in " ".join(lines_of(app)))


async def test_a_run_without_checkpoints_names_the_key_to_press(nano: Nano, store: RunStore, tmp_path: Path) -> None:
    _, log = nano.run(store, tmp_path / "none", phase="running")
    log.close()
    app = MlaApp(store)
    async with app.run_test(size=(60, 20)) as pilot:
        await listed(app, pilot, 0)
        await until(pilot, lambda: any("c in the monitor saves one" in line for line in lines_of(app)))
        await pilot.press("t", "q")
        await until(pilot, lambda: not isinstance(app.screen, CheckpointsScreen))


def test_the_command_lists_the_same_checkpoints(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["checkpoints", "nano", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(one["step"], one["newest"], one["best"], one["why"]) for one in listed] == [
        (3, True, False, "last step"),
        (2, False, True, "requested"),
        (1, False, False, "every 1"),
    ]
    assert [(one["val_loss"], one["val_step"]) for one in listed[:2]] == [(4.75, 2), (4.75, 2)]
    weights = folder(run) / "ckpt_step_1" / "model.safetensors"
    weights.write_bytes(bytes(weights.stat().st_size))
    assert main.main(["checkpoints", "nano"]) == 0
    assert "loss 3.500, val 4.750 at step 2, last step" in capsys.readouterr().out
    assert main.main(["checkpoints", "nano", "--verify"]) == 1
    said = capsys.readouterr()
    assert "ckpt_step_1" in said.err
    assert [line.endswith(", verified: checksums match") for line in said.out.splitlines()] == [True, True, False]


def test_the_last_step_is_that_of_the_live_edits(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    log = LogWriter(run.log_path, 2)
    for edit in ({"stop_step": (0, 2)}, {"stop_step": (2, "?")}):  # the second of a damaged log
        log.write(Edit(ok=True, changed=edit, step=1))
    log.write(Checkpoint(step=2, path="", bytes=1, seconds=1.0, stall_s=0.0, ok=True, why=""))
    log.close()
    assert main.main(["checkpoints", "nano", "--json"]) == 0
    assert [one["why"] for one in json.loads(capsys.readouterr().out)] == ["last step", "last step", "every 1"]


def folder(run: RunDir) -> Path:
    return Path(run.spec().train.out) / run.name
