"""The list of runs: order, filters, marks and columns, with runs in every state."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Static

from engine.events.labels import change_tags
from engine.events.types import Sample, State
from engine.host.files import write_json
from engine.host.struct_json import to_dict
from engine.runs.store import RunStore
from tests.unit.tui.helpers import on_screen, rendered, toasts, until
from tui.app.app import MlaApp
from tui.app.screens.confirm import ConfirmScreen
from tui.app.screens.home import HomeScreen
from tui.app.screens.monitor import MonitorScreen
from tui.cli.main import main

SIZES = [(80, 24), (60, 20), (160, 48), (300, 100)]


async def test_home_sorts_and_filters(store: RunStore, make_run: Any) -> None:
    make_run("old", 50)
    make_run("bad", 20, phase="failed")
    make_run("now", 30, phase="running")
    _, writer = make_run("held", 10, phase="paused")
    writer.write(State(phase="paused", reason="out of memory in forward: change it with set"))
    app = MlaApp(store)

    def names() -> list[str]:
        lines = on_screen(app, "#runs").splitlines()[1:]
        return [line.split()[0] for line in lines if line.strip()]

    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: names() == ["held", "now", "bad", "old"])
        assert "started▾" in on_screen(app, "#runs")
        assert "paused !" in on_screen(app, "#runs")
        await until(pilot, lambda: "out of memory in forward" in on_screen(app, "RunDetail"))
        await pilot.press("s")
        await until(pilot, lambda: names() == ["bad", "old", "now", "held"])
        await until(pilot, lambda: "loss▾" in on_screen(app, "#runs"))
        await until(pilot, lambda: "lowest loss first" in on_screen(app, "Heading"))
        await pilot.press("f")
        await until(pilot, lambda: names() == ["now", "held"])
        await until(pilot, lambda: "2 of 4: active" in on_screen(app, "Heading"))
        await pilot.press("f")
        await until(pilot, lambda: names() == ["bad", "old"])
        await pilot.press("f")
        await until(pilot, lambda: names() == ["bad", "held"] and "needs attention" in on_screen(app, "Heading"))
        await pilot.press("slash", *"now", "enter")
        await until(pilot, lambda: "press f for others or press / to change the filter" in on_screen(app, "#runs"))
        await pilot.press("o", "c")
        await until(pilot, lambda: toasts(app) == ["no runs: needs attention, matching “now”"] * 2)
        await pilot.press("escape", "f", "s", "s", "s", "s", "s")
        await until(pilot, lambda: names() == ["held", "now", "bad", "old"])


@pytest.mark.parametrize("size", SIZES)
async def test_home_keeps_its_columns_with_any_names(store: RunStore, make_run: Any, size: Any) -> None:
    make_run("a-name-that-says-everything-about-the-run-and-is-far-too-long-for-any-column-lr-3e-4", 5)
    _, writer = make_run("", 5, phase="needs-attention")
    writer.write(State(phase="needs-attention", reason="the data has changed"))
    make_run("日本語の名前", 5, phase="failed")
    app = MlaApp(store)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: "lr-3e-4" in on_screen(app, "#runs"))
        head, *lines = on_screen(app, "#runs").splitlines()
        at = len(head[: head.index("loss")])
        for line in lines[1:3]:  # without wide characters, whose cells are not their number
            assert line[at - 9 : at + 4].strip()
        assert " attention! " in lines[1]
        assert all(word in head for word in ("phase", "step", "loss", "tok/s"))
        assert ("reason" in head) == (size[0] == 300)


@pytest.mark.parametrize("width", [40, 55])
async def test_a_narrow_terminal_shows_no_part_of_a_number(store: RunStore, make_run: Any, width: int) -> None:
    """A step of 28,801 of 100k that is cut at the edge reads as one of 10."""
    make_run("demo", 5)
    run, _ = make_run("long", 5)
    write_json(run.state_path, {**to_dict(run.state()), "step": 28_801, "steps": 100_000})
    app = MlaApp(store)
    async with app.run_test(size=(width, 12)) as pilot:
        await until(pilot, lambda: "long" in on_screen(app, "#runs"))
        name, phase, *rest = on_screen(app, "#runs").splitlines()[1].split()
        assert (name, phase, rest[:1]) == ("long", "finished", ["28,801/100k"] if width == 55 else [])


async def test_a_damaged_run_is_one_line_among_the_others(store: RunStore, make_run: Any) -> None:
    make_run("good", 5)
    damaged, _ = make_run("hurt", 5)
    damaged.state_path.write_text("{")
    (store.runs / "29990101-000000-empty").mkdir(mode=0o700)
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "good" in on_screen(app, "#runs"))
        lines = [line.split() for line in on_screen(app, "#runs").splitlines()[1:] if line.strip()]
        assert lines[0][:2] == ["29990101-000000-empty", "damaged"]
        assert [line[:2] for line in lines[1:]] == [["hurt", "finished"], ["good", "finished"]]
        damage = "damaged: spec.json is missing; remove the run with: mla-tui rm 2999"
        await until(pilot, lambda: on_screen(app, "RunDetail").strip().startswith(damage))
        await pilot.press("down")
        await until(pilot, lambda: "state.json is damaged; read from the log" in on_screen(app, "RunDetail"))
        await pilot.press("up", "enter")
        await until(pilot, lambda: isinstance(app.screen, MonitorScreen))


async def test_the_mouse_marks_selects_and_opens(store: RunStore, make_run: Any) -> None:
    make_run("one", 5)
    make_run("two", 5)
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "one" in on_screen(app, "#runs"))
        await pilot.click("#runs", offset=(1, 2))
        await until(pilot, lambda: "1 marked" in on_screen(app, "Heading"))
        assert on_screen(app, "#runs").splitlines()[2].startswith(" ● one")
        await pilot.click("#runs", offset=(1, 2))
        await until(pilot, lambda: "marked" not in on_screen(app, "Heading"))
        assert isinstance(app.screen, HomeScreen)
        await pilot.click("#runs", offset=(10, 2))
        await until(pilot, lambda: isinstance(app.screen, MonitorScreen))


async def test_runs_are_labelled_in_place(store: RunStore, make_run: Any) -> None:
    for name in ("one", "two", "other"):
        make_run(name, 5)
    app = MlaApp(store)
    async with app.run_test(size=(160, 24)) as pilot:
        await until(pilot, lambda: "other" in on_screen(app, "#runs"))
        await pilot.press("slash", *"name:o", "enter")  # one and other
        await until(pilot, lambda: "2 of 3" in on_screen(app, "Heading"))
        await pilot.press("a", "t", *"moe sweep", "enter")
        await until(pilot, lambda: on_screen(app, "#runs").count("moe sweep") == 2)
        await pilot.press("t", *"-sweep", "enter")
        await until(pilot, lambda: store.find("one").summary().tags == store.find("other").summary().tags == ("moe",))
        await pilot.press("u", "escape", "g", "w", *"best", "enter", "e", *"-x", "enter")
        await until(pilot, lambda: "other-x" in on_screen(app, "#runs") and "best" in on_screen(app, "RunDetail"))
        other = store.find("other")
        change_tags(other.path, [str(i) * 40 for i in range(5)])  # more than the line of 160 cells has room for
        await until(pilot, lambda: f"… · {other.id}" in on_screen(app, "RunDetail"))
        await pilot.press("t", *"bad,tag", "enter")
        await until(pilot, lambda: any("without commas" in line for line in toasts(app)))
        await pilot.press("escape", "slash", *"loss<", "enter")
        await until(pilot, lambda: "write for example loss<4" in on_screen(app, "Notice"))
    assert store.find("two").summary().tags == ()


async def test_the_preview_shows_the_selected_run(store: RunStore, make_run: Any) -> None:
    run, writer = make_run("demo", 50)
    writer.write(Sample(step=40, prompt="Once", text=" upon a\x1b time"))
    make_run("bad", 3, phase="failed")
    assert main(["note", run.id, "the good one"]) == 0
    app = MlaApp(store)
    async with app.run_test(size=(160, 48)) as pilot:
        await until(pilot, lambda: "lr" in on_screen(app, "#preview"))
        assert on_screen(app, "#preview").split()[0] == "bad"
        await pilot.press("j")
        await until(pilot, lambda: "sample at step 40" in on_screen(app, "#preview"))
        shown = on_screen(app, "#preview")
        assert "the good one" in shown and "loss 7.8" in shown and "Once upon a\\x1b time" in shown
        await pilot.resize_terminal(100, 30)
        await until(pilot, lambda: not app.screen.query_one("#preview").display)


async def test_a_run_is_removed_with_its_checkpoints_or_without(store: RunStore, make_run: Any, tmp_path: Path) -> None:
    for name in ("kept", "gone", "live"):
        run, writer = make_run(name, 5, phase="running" if name == "live" else "finished")
        spec = json.loads((run.path / "spec.json").read_text())
        spec["train"]["out"] = str(tmp_path / "models")
        (run.path / "spec.json").write_text(json.dumps(spec))
        saved = tmp_path / "models" / name / "ckpt_step_5"
        saved.mkdir(parents=True)
        (saved / "manifest.json").write_bytes(b"x" * 2048)
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "kept" in on_screen(app, "#runs"))
        await pilot.press("D")  # the newest: active
        await until(pilot, lambda: any("stop it first" in line for line in toasts(app)))
        await pilot.press("j")
        for name, answer in (("gone", ["tab", "tab", "enter"]), ("kept", ["tab", "enter"])):
            await pilot.press("D")
            await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
            assert "1 checkpoint, 2.00 KiB" in str(app.screen.query(Static).first().content)
            writer.write(State(phase="saving", reason=""))
            await until(pilot, lambda: "saving" in rendered(app.screen_stack[-2].query_one("#runs")))  # below
            await pilot.press(*answer)
            await until(pilot, lambda name=name: name not in on_screen(app, "#runs"))  # type: ignore[misc]
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["kept", "live"]
    assert [store.find(id).name for id in store.ids()] == ["live"]


async def test_runs_are_paused_and_stopped_from_the_list(store: RunStore, make_run: Any) -> None:
    run, _ = make_run("live", 5, phase="running")
    make_run("over", 5)
    app = MlaApp(store)

    def requested(word: str) -> bool:
        return run.commands_path.exists() and f'"{word}"' in run.commands_path.read_text()

    async with app.run_test(size=(120, 24)) as pilot:
        await until(pilot, lambda: "over" in on_screen(app, "#runs"))
        assert not {"Stop", "Pause", "Resume"} & set(on_screen(app, "KeyBar").split())  # the newest has ended
        await pilot.press("a")
        await until(pilot, lambda: {"Stop", "Pause"} <= set(on_screen(app, "KeyBar").split()))
        await pilot.press("p")
        await until(pilot, lambda: requested("pause"))
        await pilot.press("S")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.press("tab", "enter")
        await until(pilot, lambda: requested("stop"))
