"""Shows the values at the step under the cursor in one line; hidden without a cursor."""

from __future__ import annotations

from typing import ClassVar

from tui.app.widgets.canvas import Canvas, Row
from tui.text.ellipsis import clip


class CursorValues(Canvas):
    COMPONENT_CLASSES: ClassVar[set[str]] = {"cursor-values--text", "cursor-values--event"}

    def __init__(self) -> None:
        super().__init__()
        self._texts: tuple[str, ...] = ()
        self._events = ""
        self.display = False

    def show(self, texts: tuple[str, ...], events: str) -> None:
        """Show the step (``texts[0]``), its events, and as many of the other texts as fit."""
        if (texts, events) != (self._texts, self._events):
            self._texts, self._events, self.display = texts, events, bool(texts)
            self.redraw()

    def draw(self, width: int, height: int) -> list[Row]:
        if not self._texts:
            return []
        row: Row = [(f" {self._texts[0]}", "cursor-values--text")]
        left = width - len(row[0][0])
        if self._events:
            row.append((clip(f"  {self._events}", left), "cursor-values--event"))
            left -= len(row[1][0])
        for text in self._texts[1:]:
            if len(text) + 2 > left:
                break
            row.append((f"  {text}", "cursor-values--text"))
            left -= len(text) + 2
        return [row]
