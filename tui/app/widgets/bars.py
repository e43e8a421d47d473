"""One-line widgets: the heading at the top of a screen, notices, and the key bar at the bottom."""

from __future__ import annotations

from typing import ClassVar

from rich.cells import cell_len
from textual import getters

from tui.app.actions.action import PINNED, Action, bar, key_name
from tui.app.base import AppScreen, BaseApp
from tui.app.widgets.canvas import Canvas, Row, Span
from tui.text.ellipsis import clip


class Heading(Canvas):
    """The title of a screen, with a note at the right edge."""

    app = getters.app(BaseApp)
    COMPONENT_CLASSES: ClassVar[set[str]] = {"heading--title", "heading--note", "heading--warn"}

    def __init__(self, title: str, note: str = "") -> None:
        super().__init__()
        self._title = title
        self._note: Span = (note, "heading--note")

    def show(self, title: str | None = None, note: str | None = None, warn: bool = False) -> None:
        self._title = self._title if title is None else title
        if note is not None:
            self._note = (note, "heading--warn" if warn else "heading--note")
        self.redraw()

    def draw(self, width: int, height: int) -> list[Row]:
        note, style = self._note
        title = f" read-only · {self._title}" if self.app.read_only else f" {self._title}"
        gap = width - cell_len(title) - cell_len(note) - 1
        if gap < 2:
            return [[(title, "heading--title")]]
        return [[(title, "heading--title"), (" " * gap, ""), (note, style), (" ", "")]]


class Notice(Canvas):
    """One line that needs attention; hidden while it is empty."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"notice--text"}

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._text = ""
        self.display = False

    def show(self, text: str) -> None:
        if text != self._text:
            self._text, self.display = text, bool(text)
            self.redraw()

    def draw(self, width: int, height: int) -> list[Row]:
        return [[(clip(f" {self._text}", width), "notice--text")]]


class KeyBar(Canvas):
    """The keys of a screen from the action registry, as many as fit; Help, Back and Quit always do."""

    app = getters.app(BaseApp)
    COMPONENT_CLASSES: ClassVar[set[str]] = {"keybar--key", "keybar--title"}

    def __init__(self) -> None:
        super().__init__()
        self._active = True

    def show(self, active: bool) -> None:
        """``active`` is false once the run cannot be changed; then actions that change it are left out."""
        if active != self._active:
            self._active = active
            self.redraw()

    def draw(self, width: int, height: int) -> list[Row]:
        screen = self.screen
        assert isinstance(screen, AppScreen)
        actions = [action for action in self.app.offered(screen.actions) if self._active or not action.changes]
        left = width - sum(_length(action) for action in actions if action.bar >= PINNED)
        row: Row = []
        for action in bar(actions):
            if action.bar < PINNED and (left := left - _length(action)) < 0:
                continue
            row += [(f" {key_name(action.keys[0])} ", "keybar--key"), (f"{action.title} ", "keybar--title")]
        return [row]


def _length(action: Action) -> int:
    return cell_len(key_name(action.keys[0])) + cell_len(action.title) + 3
