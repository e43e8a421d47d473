"""Defines actions, the set of actions of a screen, and the base class that binds their keys to methods."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from textual.app import App
from textual.binding import Binding, BindingType
from textual.keys import key_to_character

Keys = Mapping[str, tuple[str, ...]]
"""The user's own keys, by the action's id."""

NAVIGATION, CHARTS, RUN, APP = GROUPS = ("Navigation", "Charts", "Run", "App")
PINNED = 8  # the least ``bar`` of an action that the key bar shows however narrow it is

# An action keeps these keys beside those that the user sets, so that every screen can still be left and used.
_FIXED = ("enter", "tab", "escape", "up", "down", "pageup", "pagedown")
_NO_KEYS: Keys = {}
_KEY_NAMES = {
    "question_mark": "?",
    "slash": "/",
    "comma": ",",
    "escape": "Esc",
    "enter": "Enter",
    "tab": "Tab",
    "space": "Space",
    "up": "↑",
    "down": "↓",
    "left": "←",
    "right": "→",
    "pageup": "PgUp",
    "pagedown": "PgDn",
    "home": "Home",
    "end": "End",
}


def key_name(key: str) -> str:
    """Return how a key is written for people: ``question_mark`` is ``?``, ``ctrl+p`` is ``Ctrl+P``."""
    if key in _KEY_NAMES:
        return _KEY_NAMES[key]
    if len(key) > 1 and (character := key_to_character(key)) is not None and character.isprintable():
        return character
    if key.startswith("ctrl+"):
        return "Ctrl+" + key[5:].upper()
    return key.upper() if len(key) > 1 else key


@dataclass(frozen=True, slots=True)
class Action:
    """One action of a user.

    ``handler`` (default: the id) names the method ``action_<handler>`` of the class that has the action, or of the app
    if it starts with ``app.``; it is called with ``args``. ``group`` is the section of the help. ``bar`` is the
    position in the key bar, 0 leaves it out. An action that ``changes`` a run, a file or the machine is refused in a
    read-only app; a ``destructive`` one asks first.
    """

    id: str
    keys: tuple[str, ...]
    title: str
    help: str
    group: str = NAVIGATION
    handler: str = ""
    args: tuple[object, ...] = ()
    bar: int = 0
    changes: bool = False
    destructive: bool = False

    @property
    def call(self) -> str:
        """The action string of Textual: ``zoom(0.5)``."""
        return f"{self.handler or self.id}({', '.join(map(repr, self.args))})"

    @property
    def key_names(self) -> str:
        return " ".join(key_name(key) for key in self.keys)

    def with_keys(self, keys: Keys) -> Action:
        """Return the action with the user's own keys, if it has some."""
        if self.id not in keys:
            return self
        return replace(self, keys=(*keys[self.id], *(key for key in self.keys if key in _FIXED)))


@dataclass(frozen=True, slots=True)
class ActionSet:
    """The actions of one screen, dialog or widget, or of the app.

    ``own`` are those that its class handles. ``described`` (of its lists and texts) and ``inherited`` (of the app) work
    on the screen and are in its help, but other classes handle them.
    """

    title: str
    own: tuple[Action, ...]
    described: tuple[Action, ...] = ()
    inherited: tuple[Action, ...] = ()

    def bindings(self) -> list[BindingType]:
        """Return the Textual bindings of the class that handles the actions."""
        return [
            # The palette opens also while a text field has the focus.
            Binding(",".join(a.keys), a.call, a.title, show=False, id=a.id, priority=a.id == "palette")
            for a in self.own
        ]

    def check(self, owner: type) -> None:
        """Raise ``TypeError`` if ``owner`` (or the app) has no method that can be called as an action says."""
        for action in self.own:
            name = action.handler or action.id
            holder = App if name.startswith("app.") and not issubclass(owner, App) else owner
            method = getattr(holder, f"action_{name.removeprefix('app.')}", None)
            if method is None:
                raise TypeError(f"{holder.__name__} has no method for the action {action.call} ({action.id})")
            try:
                inspect.signature(method).bind(None, *action.args)
            except TypeError as error:
                raise TypeError(f"{holder.__name__}: action {action.call} ({action.id}): {error}") from None

    def offered(self, keys: Keys = _NO_KEYS, read_only: bool = False) -> list[Action]:
        """Return every action of the screen with the user's ``keys``; if ``read_only``, without those that change."""
        every = (*self.own, *self.described, *self.inherited)
        return [action.with_keys(keys) for action in every if not (read_only and action.changes)]

    def changing(self, call: str) -> Action | None:
        """Return the action whose action string is ``call``, if it changes something."""
        return next((action for action in self.own if action.changes and _same(action.call, call)), None)


def bar(offered: Sequence[Action]) -> list[Action]:
    """Return the actions of the key bar in its order."""
    return sorted((action for action in offered if action.bar), key=lambda action: action.bar)


def _same(call: str, other: str) -> bool:
    """Return whether two action strings are the same action: ``launch`` is ``launch()``."""
    return call.removesuffix("()") == other.removesuffix("()")


class HasActions:
    """Binds the keys of a screen, widget or app to its actions: ``class HomeScreen(AppScreen[None], actions=HOME)``.

    A handler that does not exist raises ``TypeError`` when the class is defined, not when its key is pressed.
    """

    actions: ClassVar[ActionSet]
    BINDINGS: ClassVar[list[BindingType]]

    def __init_subclass__(cls, actions: ActionSet | None = None, **options: Any) -> None:
        if actions is not None:
            cls.actions = actions
            cls.BINDINGS = actions.bindings()
        super().__init_subclass__(**options)
        if actions is not None:
            actions.check(cls)
