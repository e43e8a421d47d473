"""Keys that arrive all at once, as over a slow connection, have the same effect as one by one."""

from __future__ import annotations

from typing import Any

from textual import events
from textual.pilot import Pilot
from textual.widgets import Input

from engine.runs.store import RunStore
from tests.unit.tui.helpers import on_screen, until
from tui.app.app import MlaApp
from tui.app.screens.home import HomeScreen
from tui.app.screens.monitor import MonitorScreen
from tui.app.screens.new_run import NewRunScreen
from tui.app.screens.tuning import TuningScreen


def type_at_once(app: MlaApp, *keys: str) -> None:
    for key in keys:
        app.post_message(events.Key(key, key if len(key) == 1 else None))


async def wait_for_monitor(pilot: Pilot[Any], app: MlaApp) -> None:
    await until(pilot, lambda: "(10)" in on_screen(app, "#pane-1"))


async def test_words_after_a_slash_reach_the_search_field_only(store: RunStore, make_run: Any) -> None:
    run, _ = make_run("demo", 10, phase="running")
    app = MlaApp(store, run.id)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_for_monitor(pilot, app)
        type_at_once(app, "slash", *"exit")
        await until(pilot, lambda: app.screen.query_one("#search", Input).value == "exit")
        assert isinstance(app.screen, MonitorScreen)
        app.screen.query_one("#search", Input).value = ""
        await pilot.press("escape")
        type_at_once(app, "slash")
        app.post_message(events.Paste("pasted"))
        await until(pilot, lambda: app.screen.query_one("#search", Input).value == "pasted")


async def test_keys_typed_before_a_screen_opens_reach_it(store: RunStore, make_run: Any) -> None:
    run, _ = make_run("demo", 10, phase="running")
    app = MlaApp(store, run.id)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_for_monitor(pilot, app)
        type_at_once(app, "e", "tab", "7")
        await until(pilot, lambda: isinstance(app.screen, TuningScreen))
        await until(pilot, lambda: any("7" in field.value for field in app.screen.query(Input)))
        type_at_once(app, "escape", "q", "n")
        await until(pilot, lambda: isinstance(app.screen, NewRunScreen) and bool(app.screen.query("#name")))


async def test_keys_typed_before_a_dialog_opens_answer_it(store: RunStore, make_run: Any) -> None:
    run, _ = make_run("demo", 10, phase="running")
    app = MlaApp(store, run.id)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_for_monitor(pilot, app)
        type_at_once(app, "S", "enter", "q")  # Cancel has the focus
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))


async def test_the_key_that_quits_the_app_is_handled_too(store: RunStore, make_run: Any) -> None:
    run, _ = make_run("demo", 10, phase="running")
    app = MlaApp(store, run.id)
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_for_monitor(pilot, app)
        type_at_once(app, *"ivhlmz", "q", "q", "q", "q")
        await until(pilot, lambda: app.exiting)
