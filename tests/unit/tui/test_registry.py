"""What the registry says of every action, held against the screens themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Button

from engine.runs.store import RunStore
from tests.unit.tui.look import on_screen, toasts, until
from tui.app import actions
from tui.app.actions import ACTIONS, APP, SCREENS, Action
from tui.app.app import MlaApp
from tui.app.screens.confirm import ConfirmScreen

Opened = Callable[[Pilot[Any]], Awaitable[None]]


async def _home(pilot: Pilot[Any]) -> None:
    await until(pilot, lambda: bool(pilot.app.screen.query_one("#runs").runs))  # type: ignore[attr-defined]


async def _new_run(pilot: Pilot[Any]) -> None:
    await _home(pilot)
    await pilot.press("n")


async def _monitor(pilot: Pilot[Any]) -> None:
    await _home(pilot)
    await pilot.press("enter")


async def _compare(pilot: Pilot[Any]) -> None:
    await _home(pilot)
    await pilot.press("c")


async def _checkpoints(pilot: Pilot[Any]) -> None:
    await _home(pilot)
    await pilot.press("o")


async def _data(pilot: Pilot[Any]) -> None:
    await _home(pilot)
    await pilot.press("d")


async def _settings(pilot: Pilot[Any]) -> None:
    await _home(pilot)
    await pilot.press("f2")


# How a person gets to each screen, a living run under the cursor. A new screen belongs in here.
WAYS: dict[str, Opened] = {
    actions.HOME: _home,
    actions.NEW_RUN: _new_run,
    actions.MONITOR: _monitor,
    actions.COMPARE: _compare,
    actions.CHECKPOINTS: _checkpoints,
    actions.DATA: _data,
    actions.SETTINGS: _settings,
}


async def open_place(pilot: Pilot[Any], place: str) -> None:
    await WAYS[place](pilot)
    await until(pilot, lambda: getattr(pilot.app.screen, "place", None) == place and pilot.app.screen.is_mounted)


@pytest.mark.parametrize("place", SCREENS)
async def test_every_action_is_bound_and_answered(place: str, store: RunStore, make_run: Any) -> None:
    make_run("demo", 3, phase="running")
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_place(pilot, place)
        for action in actions.on(place):
            if action.natural:
                continue
            name = action.call.partition("(")[0]
            owner: Any = app if APP in action.screens or name.startswith("app.") else app.screen
            assert callable(getattr(owner, f"action_{name.removeprefix('app.')}", None)), action
            assert set(action.keys) <= set(app.screen.active_bindings), action


def _changing() -> list[tuple[str, Action]]:
    return [(place, action) for action in ACTIONS if action.changes for place in action.screens]


@pytest.mark.parametrize(("place", "action"), _changing(), ids=lambda of: getattr(of, "id", of))
async def test_an_app_that_only_looks_refuses_in_one_line(
    place: str, action: Action, store: RunStore, make_run: Any
) -> None:
    run, _ = make_run("demo", 3, phase="running")
    app = MlaApp(store, read_only=True)
    async with app.run_test(size=(100, 24)) as pilot:
        await open_place(pilot, place)
        assert on_screen(app, "Heading").startswith(" read-only · ")
        await pilot.press(action.keys[0])
        await until(pilot, lambda: bool(toasts(app)))
        line = toasts(app)[0]
        assert line.startswith(f"read-only: {action.title.lower()} is refused") and "\n" not in line
        assert getattr(app.screen, "place", None) == place
    assert store.ids() == [run.id] and not run.commands_path.exists()


def _destructive() -> list[tuple[str, Action]]:
    """But for checkpoints, of which there must be some: test_checkpoints.py deletes them."""
    asking = [(place, action) for place, action in _changing() if action.destructive]
    return [(place, action) for place, action in asking if place != actions.CHECKPOINTS]


@pytest.mark.parametrize(("place", "action"), _destructive(), ids=lambda of: getattr(of, "id", of))
async def test_what_destroys_asks_first_with_cancel_focused(
    place: str, action: Action, store: RunStore, make_run: Any
) -> None:
    run, _ = make_run("demo", 3, phase="running")
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_place(pilot, place)
        await pilot.press(action.keys[0])
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        assert isinstance(app.focused, Button) and app.focused.id == "cancel"
        await pilot.press("enter")
        await until(pilot, lambda: getattr(app.screen, "place", None) == place)
    assert store.ids() == [run.id] and not run.commands_path.exists()
