"""The heading of the monitor: the run's name, or in its place the values at the step under the cursor.

One line for both, so that no other widget moves and the screen is not laid out again when the cursor comes or goes.
"""

from __future__ import annotations

from typing import ClassVar

from tui.app.widgets.bars import Heading
from tui.app.widgets.canvas import Row, fit_row
from tui.text.ellipsis import clip


class RunHeading(Heading):
    COMPONENT_CLASSES: ClassVar[set[str]] = Heading.COMPONENT_CLASSES | {"cursor-values--text", "cursor-values--event"}

    def __init__(self, title: str) -> None:
        super().__init__(title)
        self._values: tuple[str, ...] = ()
        self._events = ""

    def show_values(self, values: tuple[str, ...], events: str) -> None:
        """Show the step (``values[0]``), its events, and as many other values as fit; without values the name."""
        if (values, events) != (self._values, self._events):
            self._values, self._events = values, events
            self.redraw()

    def draw(self, width: int, height: int) -> list[Row]:
        if not self._values:
            return super().draw(width, height)
        row: Row = [(f" {self._values[0]}", "cursor-values--text")]
        left = width - len(row[0][0])
        if self._events:
            row.append((clip(f"  {self._events}", left), "cursor-values--event"))
            left -= len(row[1][0])
        for text in self._values[1:]:
            if len(text) + 2 > left:
                break
            row.append((f"  {text}", "cursor-values--text"))
            left -= len(text) + 2
        return [fit_row(row, width, "cursor-values--text")]
