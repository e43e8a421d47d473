"""The action registry: every action has a key, a handler and a place in help and key bar."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
from rich.cells import cell_len

from tui.app.actions.action import Action, ActionSet, HasActions, bar, key_name
from tui.app.actions.registry import DIALOGS, EVERYWHERE, HOME, SCREENS, WIDGETS
from tui.app.app import MlaApp
from tui.app.base import AppModal, AppScreen
from tui.app.screens.checkpoints import CheckpointsScreen
from tui.app.screens.compare import CompareScreen
from tui.app.screens.confirm import ConfirmScreen
from tui.app.screens.console import ConsoleScreen
from tui.app.screens.data import DataScreen
from tui.app.screens.help import HelpScreen, help_lines
from tui.app.screens.home import HomeScreen
from tui.app.screens.log_line import LogLineScreen
from tui.app.screens.monitor import MonitorScreen
from tui.app.screens.new_run import NewRunScreen
from tui.app.screens.pack import PackScreen
from tui.app.screens.pane_picker import PanePicker
from tui.app.screens.proposal import ProposalScreen
from tui.app.screens.samples import SamplesScreen
from tui.app.screens.settings import KeyScreen, SettingsScreen
from tui.app.screens.tuning import TuningScreen
from tui.app.widgets.lever_list import LeverList
from tui.app.widgets.scrolled_lines import ScrolledLines
from tui.app.widgets.selectable_list import SelectableList
from tui.app.widgets.text_pane import TextPane
from tui.app.widgets.token_view import TokenView

ON_SCREENS = (
    *(HomeScreen, NewRunScreen, MonitorScreen, CompareScreen, CheckpointsScreen, ConsoleScreen, DataScreen),
    SamplesScreen,
    PackScreen,
    SettingsScreen,
    *(ConfirmScreen, TuningScreen, PanePicker, LogLineScreen, ProposalScreen, KeyScreen, HelpScreen),
)
CLASSES: tuple[type[HasActions], ...] = (
    *ON_SCREENS,
    MlaApp,
    SelectableList,
    LeverList,
    TextPane,
    TokenView,
    ScrolledLines,
)
EVERY = [action for actions in (*SCREENS, EVERYWHERE, *DIALOGS, *WIDGETS) for action in actions.own]
PLAIN = re.compile(
    r"[a-zA-Z0-9]|f\d+|ctrl\+[a-z]|enter|tab|escape|up|down|left|right|home|end|page(up|down)|question_mark|number_sign|slash|comma|space"
)
on_each = pytest.mark.parametrize("actions", SCREENS, ids=lambda actions: actions.title)


def test_every_action_set_has_a_class_that_binds_only_its_keys() -> None:
    assert {id(one.actions) for one in CLASSES} == {id(a) for a in (*SCREENS, EVERYWHERE, *DIALOGS, *WIDGETS)}
    for one in CLASSES:
        assert one.__dict__["BINDINGS"] == one.actions.bindings()


def test_every_handler_of_a_screen_belongs_to_an_action() -> None:
    for one in CLASSES:
        handlers = {name for owner in one.__mro__ if owner.__module__.startswith("tui.") for name in vars(owner)}
        own = [action for owner in one.__mro__ if "actions" in vars(owner) for action in vars(owner)["actions"].own]
        called = {f"action_{(action.handler or action.id).removeprefix('app.')}" for action in own}
        assert {name for name in handlers if name.startswith("action_")} - called <= {
            "action_back",
            "action_help",
            "action_help_quit",
        }, one


@pytest.mark.parametrize(
    ("action", "line"),
    [
        (Action("lanch", ("f5",), "Launch", "Start the run"), "no method for the action lanch()"),
        (Action("go", ("f5",), "Go", "Go on", args=(1,)), "action go(1)"),
        (Action("go", ("f5",), "Go", "Go on", handler="app.go"), "no method for the action app.go()"),
    ],
)
def test_a_missing_handler_is_an_error_when_the_class_is_defined(action: Action, line: str) -> None:
    with pytest.raises(TypeError, match=re.escape(line)):

        class Wrong(AppScreen[None], actions=ActionSet("Wrong", (action,))):
            def action_go(self) -> None: ...


@on_each
def test_no_two_actions_share_a_key_on_one_screen(actions: ActionSet) -> None:
    keys = Counter(key for action in actions.offered() for key in action.keys)
    assert [key for key, count in keys.items() if count > 1] == []


@on_each
def test_every_key_of_a_screen_is_in_its_help(actions: ActionSet) -> None:
    shown = "\n".join(_texts(actions.offered(), 94)).split()
    screen = next(one for one in CLASSES if one.actions is actions)
    bound = {key for binding in screen.BINDINGS + MlaApp.BINDINGS for key in _keys_of(binding)}
    assert bound
    assert [key for key in bound if key_name(key) not in shown] == []


def _keys_of(binding: Any) -> list[str]:
    return str(binding.key).split(",")


@pytest.mark.parametrize("actions", [*SCREENS, *DIALOGS], ids=lambda actions: actions.title)
@pytest.mark.parametrize("width", [54, 94])
def test_the_help_has_every_text_in_full(actions: ActionSet, width: int) -> None:
    lines = _texts(actions.offered(), width)
    assert max(map(cell_len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    assert [action.id for action in actions.offered() if f"{action.title}: {action.help}" not in text] == []


def _texts(offered: list[Action], width: int) -> list[str]:
    return ["".join(text for text, _ in row) for row in help_lines(offered, width)]


def test_tmux_passes_every_key_on() -> None:
    assert [key for action in EVERY for key in action.keys if not PLAIN.fullmatch(key)] == []


def test_ids_are_unique_and_destructive_actions_are_marked() -> None:
    meanings: dict[str, set[tuple[str, bool]]] = {}
    for action in EVERY:
        meanings.setdefault(action.id, set()).add((action.title, action.changes))
    assert [id for id, found in meanings.items() if len(found) > 1] == []
    for actions in (*SCREENS, EVERYWHERE, *DIALOGS, *WIDGETS):
        assert len({action.id for action in actions.own}) == len(actions.own)
    assert [action.id for action in EVERY if action.destructive and not action.changes] == []
    assert [action.id for action in EVERY if not action.help or not action.title or not action.keys] == []
    assert [action.id for action in EVERY if action.destructive] == ["stop", "remove", "stop", "delete"]


@on_each
def test_the_key_bar_always_shows_help_and_back(actions: ActionSet) -> None:
    ids = {action.id for action in bar(actions.offered())}
    assert "help" in ids and ("back" in ids or "quit" in ids)


def test_dialogs_have_no_keys_of_the_app() -> None:
    assert [one for one in ON_SCREENS if issubclass(one, AppModal) == bool(one.actions.inherited)] == []
    assert HOME.inherited == EVERYWHERE.own
