"""One-line widgets: the heading at the top of a screen, notices, and the key bar at the bottom."""

from __future__ import annotations

from typing import ClassVar

from rich.cells import cell_len
from textual import getters
from textual.geometry import Size

from tui.app.actions.action import PINNED, Action, bar, key_name
from tui.app.base import AppScreen, BaseApp
from tui.app.widgets.canvas import Canvas, Row, Span
from tui.text.ellipsis import clip, wrap_clipped

_NOTICE_SHARE = 6  # a notice takes at most this part of the terminal, but three lines always


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

    def fits(self, title: str, note: str) -> bool:
        """Return whether ``note`` fits beside ``title``; else it is not shown."""
        return self._gap(self.app.size.width, title, note) >= 2  # it may be hidden now

    def _gap(self, width: int, title: str, note: str) -> int:
        return width - cell_len(self._prefix + title) - cell_len(note) - 1

    @property
    def _prefix(self) -> str:
        return " read-only · " if self.app.read_only else " "

    def draw(self, width: int, height: int) -> list[Row]:
        note, style = self._note
        title, gap = self._prefix + self._title, self._gap(width, self._title, note)
        if gap < 2:
            return [[(title, "heading--title")]]
        return [[(title, "heading--title"), (" " * gap, ""), (note, style), (" ", "")]]


class Notice(Canvas):
    """A text that needs attention and the keys that answer it, in as many lines as they need; hidden while empty."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"notice--text"}

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._shown = ("", "")
        self.display = False

    def show(self, text: str, keys: str = "") -> None:
        if (text, keys) != self._shown:
            self._shown, self.display = (text, keys), bool(text)
            self.refresh(layout=True)
            self.redraw()

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._lines(width))

    def _lines(self, width: int) -> list[str]:
        """Return the text, wrapped, and the keys at the end of the last line or on the next."""
        text, keys = self._shown
        *lines, last = wrap_clipped(text, width - 1, max(self.app.size.height // _NOTICE_SHARE, 3))
        one = f"{last} · {keys}" if keys else last
        return [*lines, one] if cell_len(one) < width else [*lines, last, clip(keys, width - 1)]

    def draw(self, width: int, height: int) -> list[Row]:
        return [[(f" {line}", "notice--text")] for line in self._lines(width)]


class KeyBar(Canvas):
    """The keys of a screen from the action registry, as many as fit; Help, Back and Quit always do."""

    app = getters.app(BaseApp)
    COMPONENT_CLASSES: ClassVar[set[str]] = {"keybar--key", "keybar--title"}

    def __init__(self) -> None:
        super().__init__()
        self._hidden: frozenset[str] = frozenset()

    def hide(self, ids: frozenset[str]) -> None:
        """Leave out the actions that can do nothing now, such as a pause of a run that has ended."""
        if ids != self._hidden:
            self._hidden = ids
            self.redraw()

    def draw(self, width: int, height: int) -> list[Row]:
        screen = self.screen
        assert isinstance(screen, AppScreen)
        actions = [action for action in self.app.offered(screen.actions) if action.id not in self._hidden]
        left = width - sum(_length(action) for action in actions if action.bar >= PINNED)
        row: Row = []
        for action in bar(actions):
            if action.bar < PINNED and (left := left - _length(action)) < 0:
                continue
            row += [(f" {key_name(action.keys[0])} ", "keybar--key"), (f"{action.title} ", "keybar--title")]
        return [row]


def _length(action: Action) -> int:
    return cell_len(key_name(action.keys[0])) + cell_len(action.title) + 3
