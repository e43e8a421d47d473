"""Base class of lines below a title, which says how many more there are; scrolls."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from tui.app.actions.action import HasActions
from tui.app.actions.registry import TEXT
from tui.app.widgets.canvas import Canvas, Row
from tui.text.ellipsis import clip


class ScrolledLines(HasActions, Canvas, can_focus=True, actions=TEXT):
    """Subclasses implement ``lines``; call ``redraw`` after a change."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"lines--title", "lines--key", "lines--note"}

    def __init__(self, title: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._title = title
        self._top = 0

    @abstractmethod
    def lines(self, width: int) -> list[Row]:
        """Return every line."""

    def action_scroll_lines(self, by: int) -> None:
        self._top = max(0, self._top + by)
        self.redraw()

    def on_mouse_scroll_down(self) -> None:
        self.action_scroll_lines(1)

    def on_mouse_scroll_up(self) -> None:
        self.action_scroll_lines(-1)

    def on_focus(self) -> None:
        self.redraw()

    def on_blur(self) -> None:
        self.redraw()

    def draw(self, width: int, height: int) -> list[Row]:
        lines = self.lines(width)
        visible = max(height - 1, 1)
        self._top = min(self._top, max(len(lines) - visible, 0))
        below = len(lines) - self._top - visible
        title = self._title + (f" · {below} more lines below: j" if below > 0 else "")
        return [[(clip(title.ljust(width), width), "lines--title")], *lines[self._top : self._top + visible]]
