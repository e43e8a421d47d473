"""The form of a new run: it follows what is entered, and launches it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from textual.widgets import Input, Static

from engine.events.run_dir import RunDir
from engine.memory.hardware import Hardware
from engine.runs.store import RunStore
from tests.e2e.conftest import write_shards
from tests.unit.tui.helpers import on_screen, rendered, selected_row, text_of, until
from tui.app.app import MlaApp
from tui.app.screens.confirm import ConfirmScreen
from tui.app.screens.home import HomeScreen
from tui.app.screens.monitor import MonitorScreen
from tui.app.screens.new_run import NewRunScreen
from tui.app.widgets.bars import KeyBar
from tui.app.widgets.forecast_bars import ForecastBars
from tui.app.widgets.lever_list import LeverList


async def test_the_forecast_of_a_new_run_follows_the_form(store: RunStore) -> None:
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, NewRunScreen))
        await until(pilot, lambda: "GiB" in on_screen(app, ForecastBars))
        before = on_screen(app, ForecastBars)
        await pilot.press("tab", "2")
        await until(pilot, lambda: on_screen(app, ForecastBars) != before)
        assert "mla-tui launch -p cpu_demo -s micro=2 -s accum=1" in text_of(app, "#command")
        await pilot.press("backspace", "0")
        await until(pilot, lambda: "batch.micro: 0 is not in 1..4096" in text_of(app, "#message"))
        await pilot.press("f5")
        assert isinstance(app.screen, NewRunScreen)
        app.screen.query_one("#micro", Input).value = "2"
        app.screen.query_one("#steps", Input).value = "20"
        await until(pilot, lambda: "30 steps of warm-up are more than train.steps = 20" in text_of(app, "#message"))
        await pilot.press("q")
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))


async def test_the_forecast_of_the_profile_before_is_dimmed_until_this_one_has_its_own(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.memory import prediction

    def styles(app: MlaApp) -> set[str]:
        return {style for row in app.screen.query_one(ForecastBars).draw(80, 12) for text, style in row if text.strip()}

    predict, released = prediction.predict, threading.Event()
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("n")
        await until(pilot, lambda: "GiB" in on_screen(app, ForecastBars) and "forecast--title" in styles(app))
        monkeypatch.setattr(prediction, "predict", lambda *args: released.wait(60) and predict(*args))
        await pilot.press("j")
        await until(pilot, lambda: "-p pretrain_5080" in text_of(app, "#command"))
        assert styles(app) == {"forecast--note"}
        released.set()
        await until(pilot, lambda: "forecast--title" in styles(app))


async def test_a_memory_lever_is_entered_in_the_form(store: RunStore) -> None:
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, NewRunScreen))
        await until(pilot, lambda: "GiB" in on_screen(app, ForecastBars))
        before = on_screen(app, ForecastBars)
        await pilot.press("f4")
        levers = app.screen.query_one(LeverList)
        await until(pilot, lambda: "micro 8→4, accum 1→2" in rendered(levers))
        await until(pilot, lambda: levers.has_focus)
        while "checkpointing selective" not in selected_row(levers):
            await pilot.press("j")
        await pilot.press("enter")
        await until(pilot, lambda: "-s memory.checkpointing=selective" in text_of(app, "#command"))
        await until(pilot, lambda: on_screen(app, ForecastBars) != before)
        while "micro 8→4" not in selected_row(levers):
            await pilot.press("j")
        await pilot.press("enter")
        await until(pilot, lambda: "-s micro=4 -s accum=2 -s memory.checkpointing=sel" in text_of(app, "#command"))
        while "checkpointing full" not in selected_row(levers):
            await pilot.press("j")
        await pilot.press("enter")
        await until(pilot, lambda: "checkpointing=full" in text_of(app, "#command"))
        assert "selective" not in text_of(app, "#command")
        app.screen.query_one("#also", Input).value = "memory.loss=fancy"
        await until(pilot, lambda: "memory.loss" in text_of(app, "#message"))
        await pilot.press("f4")
        await until(pilot, lambda: not levers.display)


async def test_the_command_shows_what_is_launched(store: RunStore) -> None:
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("n")
        await until(pilot, lambda: "GiB" in on_screen(app, ForecastBars))
        await pilot.press("end")
        await until(pilot, lambda: "-p gpu_fast" in text_of(app, "#command"))
        assert "-s" not in text_of(app, "#command").split()
        assert "1.02B parameters" in text_of(app, "#size")


async def test_a_failed_launch_shows_why(store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # no data below it
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("n")
        await until(pilot, lambda: "GiB" in on_screen(app, ForecastBars))
        await pilot.press("f5")
        await until(pilot, lambda: str(tmp_path) in text_of(app, "#message"))
    assert store.ids() == []


async def test_a_run_that_cannot_fit_is_launched_only_by_one_who_insists(
    store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shards(tmp_path / "data" / "shards")
    monkeypatch.chdir(tmp_path)
    small = Hardware("small", "cpu", None, None, 1 << 28, 1 << 27)
    monkeypatch.setattr("engine.memory.hardware.detect_hardware", lambda cards=1: small)
    monkeypatch.setattr("engine.preflight.detect_hardware", lambda cards=1: small)
    started: list[RunDir] = []
    monkeypatch.setattr("engine.runs.launch.ensure_supervisor", started.append)
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("n")
        await until(pilot, lambda: "does not fit: " in text_of(app, "#message"))  # before anyone has launched it
        for answer in ("enter", "tab+enter"):
            await pilot.press("f5")
            await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
            assert "0.25 GiB there in all" in str(app.screen.query(Static).first().content)
            assert not started
            await pilot.press(*answer.split("+"))
            await until(pilot, lambda: not isinstance(app.screen, ConfirmScreen))
        await until(pilot, lambda: isinstance(app.screen, MonitorScreen))
    assert [run.id for run in started] == store.ids() and len(started) == 1


@pytest.mark.parametrize("size", [(60, 20), (80, 24), (120, 36)])
async def test_the_form_of_a_new_run_has_its_place_from_the_first_layout_on(
    store: RunStore, size: tuple[int, int]
) -> None:
    app = MlaApp(store)
    async with app.run_test(size=size) as pilot:
        form = NewRunScreen(store)
        ends: set[int] = set()
        form.screen_layout_refresh_signal.subscribe(app, lambda _: ends.add(form.query_one(KeyBar).region.bottom))
        app.push_screen(form)
        await until(pilot, lambda: len(ends) > 0 and "tokens per step" in text_of(app, "#size"))
        assert ends == {size[1]}
