"""What a person can set: theme, refresh, bandwidth, bell, and the keys of every action. Each change holds at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from textual import events, getters
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from profiles.errors import SpecError, UserError
from tui.app import custom_keys
from tui.app import settings as stored
from tui.app.actions.action import Action, key_name
from tui.app.actions.registry import NEW_KEY, SETTINGS
from tui.app.base import AppModal, AppScreen, BaseApp
from tui.app.settings import Settings
from tui.app.themes import THEMES
from tui.app.widgets.bars import Heading, KeyBar
from tui.app.widgets.canvas import Row
from tui.app.widgets.selectable_list import SelectableList
from tui.text.ellipsis import clip

_SWITCH = ((True, "on"), (False, "off"))


@dataclass(frozen=True, slots=True)
class _Entry:
    """A setting with a few values to choose from: (value, what a person reads)."""

    key: str
    title: str
    values: tuple[tuple[Any, str], ...]
    help: str


_ENTRIES = (
    _Entry("theme", "Theme", tuple((theme.name, theme.name) for theme in THEMES), "both for every colour vision"),
    _Entry(
        "refresh",
        "Charts",
        tuple((seconds, f"every {seconds:g} s") for seconds in (0.5, 1.0, 2.0, 5.0, 10.0)),
        "how often they are painted",
    ),
    _Entry("low_bandwidth", "Low bandwidth", _SWITCH, "numbers every 3 s, charts every 6 s"),
    _Entry("bell", "Bell", _SWITCH, "rings when a run needs a look"),
)


class SettingsList(SelectableList):
    """The settings, then a line for each action whose key can be another."""

    app = getters.app(BaseApp)
    COMPONENT_CLASSES: ClassVar[set[str]] = {"settings--value"}

    def __init__(self) -> None:
        super().__init__(id="settings")
        self.changeable = custom_keys.changeable()

    @property
    def _settings(self) -> Settings:
        return self.app.settings

    @property
    def entry(self) -> _Entry | None:
        return _ENTRIES[self.cursor] if self.cursor < len(_ENTRIES) else None

    @property
    def action(self) -> Action:
        return self.changeable[self.cursor - len(_ENTRIES)]

    def count(self) -> int:
        return len(_ENTRIES) + len(self.changeable)

    def row(self, index: int, width: int) -> Row:
        if index < len(_ENTRIES):
            entry = _ENTRIES[index]
            value = getattr(self._settings, entry.key)
            said = next((text for held, text in entry.values if held == value), f"every {value} s")
            return _line(entry.title, said, entry.help, width)
        action = self.changeable[index - len(_ENTRIES)]
        where = ", ".join(custom_keys.titles_with(action.id))
        changed = action.id in self._settings.keys
        note = f"{where} · {action.key_names} without settings" if changed else f"{where} · {action.help}"
        keys = action.with_keys(self._settings.keys).key_names
        return _line(f"Key of {action.title}", keys, note, width)


def _line(title: str, value: str, note: str, width: int) -> Row:
    shown = (f" {title:<20} ", ""), (f"{clip(value, 14):<14} ", "settings--value")
    return [*shown, (clip(note, max(width - 38, 0)), "list--dim")]


class SettingsScreen(AppScreen[None], actions=SETTINGS):
    """What is changed here is written down at once; where that fails it holds until the app ends, and that is said."""

    CSS_PATH = "../styles/settings.tcss"

    def compose(self) -> ComposeResult:
        yield Heading("settings", note=str(stored.settings_path()))
        yield SettingsList()
        yield Static("\n".join(self.app.trouble), id="message", markup=False)
        yield KeyBar()

    def on_mount(self) -> None:
        self._list.focus()

    @property
    def _list(self) -> SettingsList:
        return self.query_one(SettingsList)

    def action_change(self) -> None:
        entry = self._list.entry
        if entry is None:
            self.app.push_screen(KeyScreen(self._list.action), self._new_keys)
            return
        values = [value for value, _ in entry.values]
        now = getattr(self.app.settings, entry.key)
        later = values.index(now) + 1 if now in values else 0
        self._set(entry.key, values[later % len(values)])

    def on_selectable_list_activated(self) -> None:
        self.action_change()

    def action_reset(self) -> None:
        entry = self._list.entry
        if entry is None:
            self._set_keys(self._list.action.id, None)
        else:
            self._apply({entry.key: getattr(Settings(), entry.key)})
            self._store(entry.key, None)

    def _set(self, key: str, value: Any) -> None:
        self._apply({key: value})
        self._store(key, value)

    def _new_keys(self, text: str | None) -> None:
        if text is not None:
            self._set_keys(self._list.action.id, text)

    def _set_keys(self, id: str, text: str | None) -> None:
        """The keys in ``text`` for one action, or with None the one it had; refused where another has them."""
        own = {other: held for other, held in self.app.settings.keys.items() if other != id}
        try:
            if text is not None:
                own[id] = custom_keys.own_keys(id, text)
            if (found := custom_keys.conflict(own)) is not None:
                raise SpecError(found[1])
        except SpecError as error:
            self._say(str(error))
            return
        self._apply({"keys": own})
        self._store(id, text, "keys")

    def _apply(self, change: dict[str, Any]) -> None:
        self.app.apply(replace(self.app.settings, **change))
        self._list.redraw()

    def _store(self, key: str, value: Any, table: str = "") -> None:
        try:
            stored.store(key, value, table)
        except UserError as error:
            self._say(str(error))
        else:
            self._say("")

    def _say(self, text: str) -> None:
        self.query_one("#message", Static).update(text)


class KeyScreen(AppModal[str | None], actions=NEW_KEY):
    """Waits for one key; dismisses with it as it stands in the settings, or with None after Esc."""

    CSS_PATH = "../styles/dialogs.tcss"

    def __init__(self, action: Action) -> None:
        super().__init__()
        self._action = action

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(f"Press the new key of {self._action.title}", classes="dialog-title", markup=False)
            yield Static(self._action.help, markup=False)
            yield Static("a letter, digit or sign, F1 to F12, Ctrl and a letter; Esc cancels", classes="dialog-note")

    def on_key(self, event: events.Key) -> None:
        event.stop()
        event.prevent_default()
        self.dismiss(key_name(event.key))

    def action_cancel(self) -> None:
        self.dismiss(None)
