"""Changes the settings: theme, refresh interval, bandwidth, bell, and the keys of every action."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from rich.cells import cell_len
from textual import events, getters, on
from textual.app import ComposeResult
from textual.widgets import Static

from profiles.errors import SpecError, UserError
from tui.app import custom_keys, settings
from tui.app.actions.action import Action, key_name
from tui.app.actions.registry import NEW_KEY, SETTINGS
from tui.app.base import AppModal, AppScreen, BaseApp
from tui.app.settings import Settings
from tui.app.themes import THEMES
from tui.app.widgets.bars import Heading, KeyBar
from tui.app.widgets.canvas import Row
from tui.app.widgets.dialog import Dialog
from tui.app.widgets.selectable_list import SelectableList
from tui.text.ellipsis import clip

_NOTE = 38  # cells of a line that its note has not
_SWITCH = ((True, "on"), (False, "off"))


@dataclass(frozen=True, slots=True)
class _Entry:
    """A setting with the values to choose from, each with its text."""

    key: str
    title: str
    values: tuple[tuple[Any, str], ...]
    help: str


_ENTRIES = (
    _Entry("theme", "Theme", tuple((theme.name, theme.name) for theme in THEMES), "both suit colour-blind users"),
    _Entry(
        "refresh",
        "Refresh",
        tuple((seconds, f"every {seconds:g} s") for seconds in (0.5, 1.0, 2.0, 5.0, 10.0)),
        "how often charts are drawn",
    ),
    _Entry("low_bandwidth", "Low bandwidth", _SWITCH, "numbers every 3 s, charts every 6 s"),
    _Entry("bell", "Bell", _SWITCH, "rings when a run ends or needs attention"),
)


class SettingsList(SelectableList):
    """The settings, then the keys of every action that can be changed."""

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
        title, value, note = self._texts(index)
        start = (f" {title:<20} ", ""), (f"{clip(value, 14):<14} ", "settings--value")
        return [*start, (clip(note, max(width - _NOTE, 0)), "list--dim")]

    def clipped(self, width: int) -> str:
        """Return what the selected line has no room for; empty if it is whole."""
        _, value, note = self._texts(self.cursor)
        clipped = [text for text, room in ((value, 14), (note, width - _NOTE)) if cell_len(text) > room]
        return " · ".join(clipped)

    def _texts(self, index: int) -> tuple[str, str, str]:
        """Return title, value and note of a line."""
        if index < len(_ENTRIES):
            entry = _ENTRIES[index]
            value = getattr(self._settings, entry.key)
            text = next((text for one, text in entry.values if one == value), f"every {value} s")
            return entry.title, text, entry.help
        action = self.changeable[index - len(_ENTRIES)]
        where = ", ".join(custom_keys.titles_with(action.id))
        changed = action.id in self._settings.keys
        note = f"{where} · default: {action.key_names}" if changed else f"{where} · {action.help}"
        return f"Key: {action.title}", action.with_keys(self._settings.keys).key_names, note


class SettingsScreen(AppScreen[None], actions=SETTINGS):
    """Applies and stores each change at once; a change that cannot be stored lasts until the app ends."""

    CSS_PATH = "../styles/settings.tcss"

    def compose(self) -> ComposeResult:
        yield Heading("settings", note=str(settings.settings_path()))
        yield SettingsList()
        yield Static("", id="whole", markup=False)
        yield Static("\n".join(self.app.settings_errors), id="message", markup=False)
        yield KeyBar()

    def on_mount(self) -> None:
        self._list.focus()
        self._show_whole()

    def on_resize(self) -> None:
        self._show_whole()

    @on(SelectableList.CursorMoved)
    def _show_whole(self) -> None:
        """Show below the list what is clipped in its selected line."""
        self.query_one("#whole", Static).update(self._list.clipped(self.app.size.width))

    @property
    def _list(self) -> SettingsList:
        return self.query_one(SettingsList)

    def action_change(self) -> None:
        entry = self._list.entry
        if entry is None:
            self.app.push_screen(KeyScreen(self._list.action), self._new_keys)
            return
        values = [value for value, _ in entry.values]
        current = getattr(self.app.settings, entry.key)
        index = values.index(current) + 1 if current in values else 0
        value = values[index % len(values)]
        self._apply({entry.key: value})
        self._store(entry.key, value)

    def on_selectable_list_activated(self) -> None:
        self.action_change()

    def action_reset(self) -> None:
        entry = self._list.entry
        if entry is None:
            self._set_keys(self._list.action.id, None)
        else:
            self._apply({entry.key: getattr(Settings(), entry.key)})
            self._store(entry.key, None)

    def _new_keys(self, text: str | None) -> None:
        if text is not None:
            self._set_keys(self._list.action.id, text)

    def _set_keys(self, id: str, text: str | None) -> None:
        """Give an action the keys in ``text``, or its default with None; refused if another action has one of them."""
        own = {other: keys for other, keys in self.app.settings.keys.items() if other != id}
        try:
            if text is not None:
                own[id] = custom_keys.own_keys(id, text)
            if (found := custom_keys.conflict(own)) is not None:
                raise SpecError(found[1])
        except SpecError as error:
            self._show_message(str(error))
            return
        self._apply({"keys": own})
        self._store(id, text, "keys")

    def _apply(self, change: dict[str, Any]) -> None:
        self.app.apply(replace(self.app.settings, **change))
        self._list.redraw()
        self._show_whole()

    def _store(self, key: str, value: Any, table: str = "") -> None:
        try:
            settings.store(key, value, table)
        except UserError as error:
            self._show_message(str(error))
        else:
            self._show_message("")

    def _show_message(self, text: str) -> None:
        self.query_one("#message", Static).update(text)


class KeyScreen(AppModal[str | None], actions=NEW_KEY):
    """Waits for one key; dismisses with its name in the settings file, or with None after Esc."""

    CSS_PATH = "../styles/dialogs.tcss"

    def __init__(self, action: Action) -> None:
        super().__init__()
        self._action = action

    def compose(self) -> ComposeResult:
        with Dialog("Esc cancels"):
            yield Static(f"Press the new key for {self._action.title}", classes="dialog-title", markup=False)
            yield Static(self._action.help, markup=False)
            yield Static("a letter, digit or sign, F1 to F12, Ctrl and a letter", classes="dialog-note")

    def on_key(self, event: events.Key) -> None:
        if all(event.key not in action.keys for action in self.actions.own):  # Esc cancels
            event.stop()
            event.prevent_default()
            self.dismiss(key_name(event.key))

    def action_cancel(self) -> None:
        self.dismiss(None)
