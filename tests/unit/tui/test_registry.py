"""The action registry, checked on the screens themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Button, Input

from engine.runs.store import RunStore
from tests.unit.tui.helpers import on_screen, toasts, until
from tui.app.actions.action import Action, ActionSet
from tui.app.actions.registry import (
    CHECKPOINTS,
    COMPARE,
    CONSOLE,
    DATA,
    HOME,
    MONITOR,
    NEW_RUN,
    PACK,
    SAMPLES,
    SCREENS,
    SETTINGS,
)
from tui.app.app import MlaApp
from tui.app.base import AppScreen
from tui.app.screens.confirm import ConfirmScreen
from tui.app.screens.data import DataScreen

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


async def _console(pilot: Pilot[Any]) -> None:
    await _monitor(pilot)
    await pilot.press("t")


async def _samples(pilot: Pilot[Any]) -> None:
    await _monitor(pilot)
    await pilot.press("T")


async def _data(pilot: Pilot[Any]) -> None:
    await _home(pilot)
    await pilot.press("d")


async def _pack(pilot: Pilot[Any]) -> None:
    await _data(pilot)
    await until(pilot, lambda: isinstance(pilot.app.screen, DataScreen) and pilot.app.screen.is_mounted)
    await pilot.press("a")


async def _settings(pilot: Pilot[Any]) -> None:
    await _home(pilot)
    await pilot.press("f2")


# How to open each screen, with an active run selected.
PATHS: list[tuple[ActionSet, Opened]] = [
    (HOME, _home),
    (NEW_RUN, _new_run),
    (MONITOR, _monitor),
    (COMPARE, _compare),
    (CHECKPOINTS, _checkpoints),
    (CONSOLE, _console),
    (SAMPLES, _samples),
    (DATA, _data),
    (PACK, _pack),
    (SETTINGS, _settings),
]


each = pytest.mark.parametrize(("actions", "path"), PATHS, ids=[actions.title for actions, _ in PATHS])


def shown(app: MlaApp) -> ActionSet | None:
    """The actions of the screen on top."""
    return app.screen.actions if isinstance(app.screen, AppScreen) else None


async def opened(pilot: Pilot[Any], app: MlaApp, actions: ActionSet, path: Opened) -> None:
    await path(pilot)
    await until(pilot, lambda: shown(app) is actions and app.screen.is_mounted)


def test_every_screen_is_opened_here() -> None:
    assert [actions for actions, _ in PATHS] == list(SCREENS)


@each
async def test_every_action_is_bound(actions: ActionSet, path: Opened, store: RunStore, make_run: Any) -> None:
    make_run("demo", 3, phase="running")
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot, app, actions, path)
        for action in (*actions.own, *actions.inherited):
            typed = {"question_mark", "comma"} if isinstance(app.screen.focused, Input) else set()
            assert set(action.keys) - typed <= set(app.screen.active_bindings), action


def _changing() -> list[Any]:
    """Each action that changes something, with its screen and how to open it."""
    return [
        pytest.param(actions, path, action, id=f"{actions.title}-{action.id}")
        for actions, path in PATHS
        for action in actions.own
        if action.changes
    ]


@pytest.mark.parametrize(("actions", "path", "action"), _changing())
async def test_a_read_only_app_refuses_with_one_line(
    actions: ActionSet, path: Opened, action: Action, store: RunStore, make_run: Any
) -> None:
    run, _ = make_run("demo", 3, phase="running")
    app = MlaApp(store, read_only=True)
    async with app.run_test(size=(100, 24)) as pilot:
        await opened(pilot, app, actions, path)
        assert on_screen(app, "Heading").startswith(" read-only · ")
        await pilot.press(action.keys[0])
        await until(pilot, lambda: bool(toasts(app)))
        line = toasts(app)[0]
        assert line.startswith(f"read-only: {action.title.lower()} is refused") and "\n" not in line
        assert shown(app) is actions
    assert store.ids() == [run.id] and not run.commands_path.exists()


def _destructive() -> list[Any]:
    """Without those of the checkpoints screen, which need checkpoints: see test_checkpoints.py."""
    return [one for one in _changing() if one.values[2].destructive and one.values[0] is not CHECKPOINTS]


@pytest.mark.parametrize(("actions", "path", "action"), _destructive())
async def test_a_destructive_action_asks_first_with_cancel_focused(
    actions: ActionSet, path: Opened, action: Action, store: RunStore, make_run: Any
) -> None:
    run, _ = make_run("demo", 3, phase="finished" if action.id == "remove" else "running")
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot, app, actions, path)
        await pilot.press(action.keys[0])
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        assert isinstance(app.focused, Button) and app.focused.id == "cancel"
        await pilot.press("enter")
        await until(pilot, lambda: shown(app) is actions)
    assert store.ids() == [run.id] and not run.commands_path.exists()
