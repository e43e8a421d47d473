"""Text is packed from the app, by a process that outlives it, and a new run is offered the data."""

from __future__ import annotations

import contextlib
import os
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from textual.widgets import Input

from data.pack.journal import StateFolder
from engine.host.files import read_json, write_json
from engine.host.process import process_identity
from engine.host.struct_json import to_dict
from engine.runs.store import RunStore
from tests.unit.tui import helpers
from tests.unit.tui.helpers import on_screen, text_of
from tui.app import app as app_module
from tui.app.app import MlaApp
from tui.app.screens.checkpoints import CheckpointsScreen
from tui.app.screens.pack import PackScreen
from tui.app.state.packs import Pack, Packed, packed_phases
from tui.app.widgets.bars import Heading
from tui.app.widgets.text_pane import TextPane

until = partial(helpers.until, seconds=60.0)  # child processes start slowly


def write_texts(folder: Path) -> None:
    folder.mkdir()
    for number in range(40):
        (folder / f"{number}.txt").write_text(f"Text number {number} says that {number} and {number} are even. " * 20)


def test_what_a_screen_says_of_its_parts_holds_for_no_other_screen() -> None:
    """Textual keeps the styles of every screen that was opened."""
    shared = {"app.tcss", "dialogs.tcss", "forecast.tcss"}
    for path in (Path(app_module.__file__).parent / "styles").glob("*.tcss"):
        rules = re.findall(r"^([^{}/\n]+)\{", path.read_text(), re.MULTILINE)
        selectors = [one.strip() for rule in rules for one in rule.split(",")]
        loose = [one for one in selectors if re.match(r"#|\.field|Prompt|NumberField|ForecastBars", one)]
        assert path.name in shared or loose == [], (path.name, loose)


async def test_the_output_of_a_pack_is_seen_after_the_checkpoints(
    store: RunStore, make_run: Any, tmp_path: Path
) -> None:
    make_run("demo", 1)
    app = MlaApp(store)
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: "demo" in on_screen(app, "#runs"))
        await pilot.press("o")
        await until(pilot, lambda: isinstance(app.screen, CheckpointsScreen))
        app.push_screen(PackScreen(tmp_path))
        await until(pilot, lambda: isinstance(app.screen, PackScreen) and app.screen.is_mounted)
        await until(pilot, lambda: app.screen.query_one(TextPane).size.height > 9)


async def test_a_pack_outlives_the_app_and_its_data_is_offered(
    store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_texts(tmp_path / "my texts")
    root = tmp_path / "data" / "shards"
    app = MlaApp(store)
    async with app.run_test(size=(100, 30)) as pilot:
        app.push_screen(PackScreen(Path("data/shards")))
        await until(pilot, lambda: "Markdown" in text_of(app, "#command"))
        await pilot.press("enter")
        assert text_of(app, "#message") == "text: name a file or a folder"
        for field, value in (("sources", "'my texts'"), ("phase", "mine"), ("ids", "300"), ("val", "20%")):
            app.screen.query_one(f"#{field}", Input).value = value
        await pilot.press("f5")
        await until(pilot, lambda: "$ mla-tui data pack --out=" in on_screen(app, TextPane))
        assert "$" not in text_of(app, "#command")  # it is named once
    pack = Pack(root, "mine")
    process = read_json(root / ".mine-pack.json")["process"]
    with contextlib.suppress(ProcessLookupError):  # it may have ended by now
        assert os.getsid(process["pid"]) == process["pid"]  # a session of its own

    again = MlaApp(store)
    async with again.run_test(size=(100, 30)) as pilot:
        again.push_screen(PackScreen(root))
        await until(pilot, lambda: "ends a document" in on_screen(again, TextPane))
        await until(pilot, lambda: not pack.is_alive())
        again.pop_screen()
        again.open_new_run()
        await until(pilot, lambda: bool(again.screen.query("#phase")))
        offered = "phase1 (missing); also mine"
        await until(pilot, lambda: again.screen.query_one("#phase", Input).placeholder == offered)
        again.screen.query_one("#phase", Input).value = "mine"
        await until(pilot, lambda: "-s data.phase=mine" in text_of(again, "#command"))
        await until(pilot, lambda: "epoch" in text_of(again, "#data"))
    assert [found.phase for found in packed_phases(root)] == ["mine"]
    assert all(isinstance(found, Packed) and 257 <= found.vocab_size <= 300 for found in packed_phases(root))


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"namespace": 1}, "in another container (process {} there)"),
        ({"boot": "b", "namespace": 1}, "on another machine (process {} there)"),
    ],
    ids=["container", "machine"],
)
async def test_a_pack_of_another_container_or_machine_is_packing_until_its_lock_is_free(
    store: RunStore, tmp_path: Path, changes: dict[str, Any], where: str
) -> None:
    state, ours = StateFolder(tmp_path / ".mine-packing"), process_identity(os.getpid())
    write_json(tmp_path / ".mine-pack.json", {"process": to_dict(replace(ours, **changes)), "command": "c"})
    where = where.format(os.getpid())
    app = MlaApp(store)
    async with app.run_test(size=(240, 30)) as pilot:
        app.push_screen(PackScreen(tmp_path))
        await until(pilot, lambda: f"packing {where}" in on_screen(app, Heading))
        await pilot.press("f8")
        await until(pilot, lambda: text_of(app, "#message") == f"the pack runs {where}: stop it there")
        state.close()
        await until(pilot, lambda: "packing" not in on_screen(app, Heading))


@pytest.mark.parametrize(
    ("sources", "phase", "message"),
    [
        ("'open", "mine", "text: No closing quotation; write it in quotes"),
        ("-", "mine", "text: standard input is for the command line: name a file"),
        ("a", "", "name: write one; a run reads it with data.phase"),
        ("a", "../mine", "name '../mine': use a name"),
    ],
)
async def test_what_cannot_be_packed_is_said_in_one_line(
    store: RunStore, tmp_path: Path, sources: str, phase: str, message: str
) -> None:
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        app.push_screen(PackScreen(tmp_path / "shards"))
        await until(pilot, lambda: bool(app.screen.query("#sources")))
        for field, value in (("sources", sources), ("phase", phase)):
            app.screen.query_one(f"#{field}", Input).value = value
        await pilot.pause()
        await pilot.press("f5")
        assert text_of(app, "#message").startswith(message)
    assert not (tmp_path / "shards").exists()
