import re
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from tui.app import actions
from tui.app.app import MlaApp
from tui.app.screens.checkpoints import CheckpointsScreen
from tui.app.screens.compare import CompareScreen
from tui.app.screens.data import DataScreen
from tui.app.screens.help import help_text
from tui.app.screens.home import HomeScreen
from tui.app.screens.monitor import MonitorScreen
from tui.app.screens.new_run import NewRunScreen
from tui.app.screens.settings import SettingsScreen

CLASSES: dict[str, type[Any]] = {
    actions.HOME: HomeScreen,
    actions.NEW_RUN: NewRunScreen,
    actions.MONITOR: MonitorScreen,
    actions.COMPARE: CompareScreen,
    actions.SETTINGS: SettingsScreen,
    actions.CHECKPOINTS: CheckpointsScreen,
    actions.DATA: DataScreen,
}
PLAIN = re.compile(
    r"[a-zA-Z0-9]|f\d+|ctrl\+[a-z]|enter|tab|escape|up|down|left|right|pageup|pagedown|question_mark|slash|comma|space"
)


@pytest.mark.parametrize("place", actions.SCREENS)
def test_no_two_actions_share_a_key_on_one_screen(place: str) -> None:
    keys = Counter(key for action in actions.on(place) for key in action.keys)
    assert [key for key, count in keys.items() if count > 1] == []


@pytest.mark.parametrize("place", actions.SCREENS)
@pytest.mark.parametrize("size", [(154, 44), (74, 20)])
def test_every_key_of_a_screen_is_in_its_help(place: str, size: tuple[int, int]) -> None:
    shown = help_text(actions.on(place), *size).plain.split()
    bound = {key for binding in CLASSES[place].BINDINGS + MlaApp.BINDINGS for key in binding.key.split(",")}
    assert bound
    assert [key for key in bound if actions.key_name(key) not in shown] == []


@pytest.mark.parametrize("place", actions.SCREENS)
@pytest.mark.parametrize("least", [0, 50])
def test_the_help_fits_a_small_terminal(place: str, least: int) -> None:
    offered = actions.on(place)
    offered += [replace(offered[0], keys=("f12",), title=f"Another {i}") for i in range(least - len(offered))]
    for width, height in ((74, 19), (54, 15)):
        lines = help_text(offered, width, height).plain.splitlines()
        assert max(map(len, lines)) <= width
        assert len(lines) <= height or width < 70
        assert [action.title for action in offered if action.title not in "\n".join(lines)] == []


@pytest.mark.parametrize("place", actions.SCREENS)
def test_every_action_is_answered(place: str) -> None:
    for action in actions.on(place):
        if action.natural:
            continue
        name = action.call.partition("(")[0]
        owner = MlaApp if name.startswith("app.") or actions.APP in action.screens else CLASSES[place]
        assert hasattr(owner, f"action_{name.removeprefix('app.')}"), action


def test_keys_are_those_that_tmux_passes_on() -> None:
    assert [key for action in actions.ACTIONS for key in action.keys if not PLAIN.fullmatch(key)] == []


def test_ids_are_unique_and_what_destroys_is_marked() -> None:
    assert len({action.id for action in actions.ACTIONS}) == len(actions.ACTIONS)
    assert [action.id for action in actions.ACTIONS if action.destructive and not action.changes] == []
    assert [action.id for action in actions.ACTIONS if not action.help or not action.title] == []
    assert [action.id for action in actions.ACTIONS if action.destructive] == ["stop", "delete"]


@pytest.mark.parametrize("place", actions.SCREENS)
def test_the_key_bar_shows_help_and_the_way_out(place: str) -> None:
    titles = [title for _, title in actions.bar(place)]
    assert "Help" in titles and ("Back" in titles or "Quit" in titles)
