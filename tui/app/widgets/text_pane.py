"""Shows wrapped text that grows, with its end in view; only new cells are sent."""

from __future__ import annotations

from rich.cells import chop_cells

from tui.app.actions.action import HasActions
from tui.app.actions.registry import TEXT
from tui.app.widgets.canvas import Canvas, Row


class TextPane(HasActions, Canvas, can_focus=True, actions=TEXT):
    """``write`` appends; while scrolled back, the visible lines keep their distance to the end."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.text = ""
        self._lines_below = 0

    def clear(self) -> None:
        self.text, self._lines_below = "", 0
        self.redraw()

    def write(self, piece: str) -> None:
        self.replace(self.text + piece)

    def replace(self, text: str) -> None:
        """Show another text; the position from its end stays."""
        self.text = text
        self.redraw()

    def action_scroll_lines(self, by: int) -> None:
        lines = len(self._lines(self.content_size.width))
        self._lines_below = max(0, min(self._lines_below - by, lines - self.content_size.height))
        self.redraw()

    def _lines(self, width: int) -> list[str]:
        lines = self.text.expandtabs(4).split("\n")
        return [part for line in lines for part in (chop_cells(line, width) or [""])]

    def draw(self, width: int, height: int) -> list[Row]:
        lines = self._lines(width)
        end = len(lines) - self._lines_below
        return [[(line, "")] for line in lines[max(0, end - height) : end]]
