"""One key grammar: what several screens have is on one key, and the key of what destroys does nothing else.

Read from the registry alone, so a new screen or action is covered as soon as it is listed there.
"""

from __future__ import annotations

import pytest

from tui.app.actions.action import Action
from tui.app.actions.registry import DIALOGS, EVERYWHERE, HOME, MONITOR, PACK, SCREENS, WIDGETS

EVERY = [(one.title, action) for one in (*SCREENS, EVERYWHERE, *DIALOGS, *WIDGETS) for action in one.own]
# Meaning → the keys that have it, and the ids of the actions that it is the meaning of.
GRAMMAR: dict[str, tuple[set[str], set[str]]] = {
    "next line": ({"j", "down"}, {"down", "log_down"}),
    "previous line": ({"k", "up"}, {"up", "log_up"}),
    "first line": ({"g"}, {"first", "log_oldest"}),
    "last line": ({"G"}, {"last", "log_newest"}),
    "page down": ({"pagedown"}, {"page_down", "log_page_down"}),
    "page up": ({"pageup"}, {"page_up", "log_page_up"}),
    "next field or pane": ({"tab"}, {"focus_next"}),
    "back": ({"q", "escape"}, {"back", "cancel", "quit", "close", "clear_filter"}),
    "open": ({"enter"}, {"open", "open_line"}),
    "quit": ({"ctrl+q"}, {"quit_app"}),
    "help": ({"question_mark", "f1"}, {"help"}),
    "commands": ({"ctrl+p"}, {"palette"}),
    "settings": ({"f2", "comma"}, {"settings"}),
    "filter or search": ({"slash"}, {"filter", "search"}),
    "zoom in": ({"i"}, {"zoom_in"}),
    "zoom out": ({"u"}, {"zoom_out"}),
    "everything": ({"0"}, {"all_steps"}),
    "earlier": ({"h", "left"}, {"earlier"}),
    "later": ({"l", "right"}, {"later"}),
    "cursor": ({"v"}, {"cursor"}),
    "smooth": ({"s"}, {"smooth"}),
    "x axis": ({"x"}, {"x_axis"}),
    "y axis": ({"y"}, {"log_scale"}),
    "copy": ({"C"}, {"copy", "copy_path"}),
    "checkpoints": ({"o"}, {"checkpoints"}),
    "pause": ({"p"}, {"pause"}),
    "resume": ({"r"}, {"resume"}),
    "spec": ({"d"}, {"spec", "differences"}),
}
# What keys of the grammar also do in a dialog: they move between its fields, and ? closes the help that it opened.
IN_DIALOGS = {"next line": {"focus_next"}, "previous line": {"focus_previous"}, "help": {"back"}}
# The keys with one meaning in the whole app. Other letters may differ by screen.
RESERVED = (
    *("next line", "previous line", "first line", "last line", "page down", "page up", "back", "quit"),
    *("help", "commands", "settings", "filter or search", "copy"),
)


@pytest.mark.parametrize("meaning", GRAMMAR)
def test_what_several_screens_have_is_on_one_key(meaning: str) -> None:
    keys, ids = GRAMMAR[meaning]
    found = [(title, action) for title, action in EVERY if action.id in ids]
    # A dialog moves between its fields also with the arrows and their letters; a number field takes no letter.
    assert [(title, a.id, a.keys) for title, a in found if not keys & set(a.keys) and a.id != "focus_next"] == []
    assert {action.id for _, action in found} == ids


@pytest.mark.parametrize("meaning", RESERVED)
def test_a_key_of_the_grammar_means_nothing_else(meaning: str) -> None:
    keys, ids = GRAMMAR[meaning]
    others = [
        (title, a.id) for title, a in EVERY if keys & set(a.keys) and a.id not in ids | IN_DIALOGS.get(meaning, set())
    ]
    assert others == []


def test_charts_have_the_keys_of_charts_wherever_they_are() -> None:
    """Compare zooms, pans and reads like the monitor."""
    charts = {"zoom_in", "zoom_out", "all_steps", "earlier", "later", "cursor", "smooth", "x_axis", "log_scale", "copy"}
    screens = [one for one in SCREENS if any(action.id == "zoom_in" for action in one.own)]
    assert len(screens) == 2 and MONITOR in screens
    for one in screens:
        assert charts <= {action.id for action in one.own}


def test_the_key_of_a_destructive_action_is_harmless_nowhere_else() -> None:
    destructive = [action for _, action in EVERY if action.destructive]
    letters = {key for action in destructive for key in action.keys}
    assert letters == {"S", "D"} and all(action.changes for action in destructive)
    assert [(title, a.id) for title, a in EVERY if letters & set(a.keys) and not a.destructive] == []


def test_what_removes_or_stops_asks() -> None:
    """No action with the words of a destructive one is left unmarked; a pack that is stopped goes on later."""
    words = ("stop", "remove", "delete", "discard", "kill")
    unmarked = [
        (title, action.id)
        for title, action in EVERY
        if action.changes and not action.destructive and action.title.lower().split()[0] in words
    ]
    assert unmarked == [(PACK.title, "stop")]
    assert _action("remove").destructive and _action("remove").keys == ("D",)


def _action(id: str) -> Action:
    return next(action for action in HOME.own if action.id == id)
