"""Help: it has every key of what is below, scrolls, and opens in every dialog."""

from __future__ import annotations

from functools import partial
from typing import Any

from textual.widgets import Button

from engine.runs.store import RunStore
from tests.unit.tui import screen_text
from tests.unit.tui.helpers import on_screen, until
from tui.app.actions.action import HasActions
from tui.app.actions.registry import DIALOGS, HELP_DIALOG, NEW_KEY
from tui.app.app import MlaApp
from tui.app.base import AppModal, AppScreen
from tui.app.screens.confirm import ConfirmScreen
from tui.app.screens.help import HelpLines, HelpScreen
from tui.app.screens.home import HomeScreen
from tui.app.screens.monitor import MonitorScreen
from tui.app.widgets.log_view import LogView
from tui.app.widgets.selectable_list import SelectableList


def unexplained(app: MlaApp) -> set[str]:
    """Return the keys of what has the focus that the help of the screen does not have."""
    screen, focused = app.screen, app.focused
    assert isinstance(screen, AppScreen)
    explained = {key for action in app.offered(screen.actions) for key in action.keys}
    own: set[str] = set()
    if isinstance(focused, HasActions):
        own = {key for action in focused.actions.own for key in action.keys}
    return own - explained


async def test_help_has_every_key_of_the_screen_below_and_scrolls(store: RunStore) -> None:
    app = MlaApp(store)
    async with app.run_test(size=(60, 20)) as pilot:
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        assert "Runs: keys" in (top := on_screen(app, HelpLines)) and "New run: Choose a profile" in top
        assert "Ctrl+P" not in top
        await pilot.press("G")
        assert "Ctrl+P" in on_screen(app, HelpLines) and "New run" not in on_screen(app, HelpLines)
        await pilot.press("q")
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))
        assert unexplained(app) == set()
        for key in ("n", "f2"):
            await pilot.press(key)
            await until(pilot, lambda: isinstance(app.focused, SelectableList) and app.focused.id != "runs")
            assert unexplained(app) == set()
            await pilot.press("q")
            await until(pilot, lambda: isinstance(app.screen, HomeScreen))


async def test_help_opens_in_every_dialog(store: RunStore, make_run: Any) -> None:
    run, _ = make_run("demo", 5, phase="running")
    app = MlaApp(store, run.id)
    opened: set[str] = set()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, MonitorScreen))
        await until(pilot, lambda: "running" in on_screen(app, LogView))
        for keys in (["S"], ["e"], ["f"], ["5", "enter"], ["escape", "i"]):
            await pilot.press(*keys)
            await until(pilot, lambda: isinstance(app.screen, AppModal))
            dialog = app.screen
            for _ in app.screen.focus_chain:
                assert unexplained(app) == set()
                app.screen.focus_next()
            await pilot.press("f1")
            await until(pilot, lambda: isinstance(app.screen, HelpScreen))
            shown = on_screen(app, HelpLines)
            assert "Help: Show every key" in shown
            opened.add(shown.splitlines()[0].partition(" ·")[0].strip())
            await pilot.press("question_mark")
            assert app.screen is dialog
            await pilot.press("escape")
            await until(pilot, lambda: not isinstance(app.screen, AppModal))
    # A new key is any key, so that dialog says in its own lines what there is to know.
    assert opened == {f"{dialog.title}: keys" for dialog in DIALOGS if dialog not in (NEW_KEY, HELP_DIALOG)}


async def test_every_answer_of_a_question_is_on_screen(store: RunStore) -> None:
    answers = [("run", "Remove, keep checkpoints"), ("all", "Remove with them")]
    app = MlaApp(store)
    async with app.run_test(size=(60, 20)) as pilot:
        app.push_screen(ConfirmScreen("Remove a run?", answers))
        shown = partial(screen_text.cells, app)
        await until(pilot, lambda: "  Remove with them  " in screen_text.text(shown()))
        await pilot.press("j", "j")
        assert isinstance(app.focused, Button) and app.focused.id == "all"
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: "keep checkpoints     Remove with them" in screen_text.text(shown()))
