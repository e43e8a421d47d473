"""Growing text, wrapped, its end in sight; only the cells that are new are sent."""

from __future__ import annotations

from typing import ClassVar

from rich.cells import chop_cells
from textual.binding import Binding, BindingType

from tui.app.widgets.canvas import Canvas, Row


class TextPane(Canvas, can_focus=True):
    """``write`` adds; scrolled back, it stays where it is."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j,down", "scroll(-1)", show=False),
        Binding("k,up", "scroll(1)", show=False),
        Binding("pagedown", "scroll(-10)", show=False),
        Binding("pageup", "scroll(10)", show=False),
    ]

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.text = ""
        self._back = 0

    def clear(self) -> None:
        self.text, self._back = "", 0
        self.redraw()

    def write(self, piece: str) -> None:
        self.text += piece
        self.redraw()

    def action_scroll(self, by: int) -> None:
        lines = len(self._lines(self.content_size.width))
        self._back = max(0, min(self._back + by, lines - self.content_size.height))
        self.redraw()

    def _lines(self, width: int) -> list[str]:
        lines = self.text.expandtabs(4).split("\n")
        return [part for line in lines for part in (chop_cells(line, width) or [""])]

    def draw(self, width: int, height: int) -> list[Row]:
        lines = self._lines(width)
        end = len(lines) - self._back
        return [[(line, "")] for line in lines[max(0, end - height) : end]]
