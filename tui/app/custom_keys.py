"""Checks the keys that a user sets: whether every terminal sends them, and whether two actions share one."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from difflib import get_close_matches

from textual.binding import Binding

from profiles.errors import SpecError
from profiles.printable import LONGEST_KEY, brief
from tui.app.actions.action import Action, Keys, key_name
from tui.app.actions.registry import DIALOGS, EVERYWHERE, SCREENS, WIDGETS

_ALLOWED = "write a letter, digit or sign, F1 to F12, or Ctrl and a letter"
# A terminal sends one byte for Ctrl and a letter, and these bytes are those of other keys.
_TAKEN_BYTES = {"h": "Backspace", "i": "Tab", "j": "Enter", "m": "Enter"}
_COPY = "c"  # Ctrl+C copies text, or says how to quit
_SETS = (*SCREENS, EVERYWHERE, *DIALOGS)
_OF_WIDGETS = {action.id for actions in WIDGETS for action in actions.own}


def parse(text: str) -> str:
    """Return Textual's name of the key ``text``: ``Z``, ``?``, ``f6``, ``Ctrl+T``.

    Raises ``SpecError`` if not every terminal sends such a key.
    """
    if len(text) == 1 and text.isprintable() and text.isascii() and text != " ":
        return _key_of(text)
    low = text.lower()
    if re.fullmatch(r"f([1-9]|1[0-2])", low):
        return low
    if found := re.fullmatch(r"(?:ctrl\+|\^)([a-z])", low):
        letter = found[1]
        if letter in _TAKEN_BYTES:
            raise SpecError(f"{brief(text)} is {_TAKEN_BYTES[letter]} to a terminal; use another letter")
        if letter == _COPY:
            raise SpecError(f"{brief(text)} copies text; use another letter")
        return f"ctrl+{letter}"
    if "+" in text.strip("+"):
        raise SpecError(f"{brief(text)} is not sent by every terminal (tmux and ssh drop it); {_ALLOWED}")
    raise SpecError(f"{brief(text)} is not a key; {_ALLOWED}")


def _key_of(character: str) -> str:
    """Return Textual's name of the key that types ``character``."""
    if character == ",":  # it separates the keys of a binding
        return "comma"
    return next(iter(Binding.make_bindings([(character, "")]))).key


def changeable() -> list[Action]:
    """Return the actions whose keys can be changed, each once: all but those of a list or a text."""
    found: dict[str, Action] = {}
    for actions in _SETS:
        for action in actions.own:
            found.setdefault(action.id, action)
    return [action for action in found.values() if action.id not in _OF_WIDGETS]


def titles_with(id: str) -> list[str]:
    """Return the titles of the screens and dialogs that have the action ``id``."""
    return [actions.title for actions in _SETS if any(action.id == id for action in actions.own)]


def own_keys(id: str, text: str) -> tuple[str, ...]:
    """Return the keys in ``text``, separated by spaces, for the action ``id``. Raises ``SpecError``."""
    ids = [action.id for action in changeable()]
    if id not in ids:
        if id in _OF_WIDGETS:
            raise SpecError("belongs to every list and cannot be changed; remove this line")
        near = get_close_matches(id[:LONGEST_KEY], ids, 1)
        hint = (
            f"did you mean {near[0]}?"
            if near
            else f"there are {', '.join(ids[:8])} and others; the settings screen lists all"
        )
        raise SpecError(f"no such action; {hint}")
    if not text.split():
        raise SpecError("'' is not a key; remove this line to restore the default")
    return tuple(dict.fromkeys(parse(word) for word in text.split()))


def conflict(keys: Keys) -> tuple[str, str] | None:
    """Return an action id of ``keys`` with a key of another action on the same screen, and a line that says so."""
    everywhere = {action.id for action in EVERYWHERE.own}
    for actions in _SETS:
        holders: dict[str, list[Action]] = defaultdict(list)
        for action in actions.offered(keys):
            for key in action.keys:
                holders[key].append(action)
        for key, (first, *others) in holders.items():
            for other in others:
                mine, theirs = (first, other) if first.id in keys else (other, first)
                where = "everywhere" if theirs.id in everywhere else f"on {actions.title}"
                line = f"{key_name(key)!r} is {theirs.title} ({theirs.id}) {where}"
                return mine.id, f"{line}; use another key, or give {theirs.id} another one first"
    return None


def checked(texts: Mapping[str, str]) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Return the keys of ``texts`` (by action id) without conflicts, and why each of the others is refused."""
    keys: dict[str, tuple[str, ...]] = {}
    refused: dict[str, str] = {}
    for id, text in texts.items():
        try:
            keys[id] = own_keys(id, text)
        except SpecError as error:
            refused[id] = str(error)
    while (found := conflict(keys)) is not None:
        id, why = found
        refused[id] = why
        del keys[id]  # its default key may conflict with another one now, so check again
    return keys, refused
