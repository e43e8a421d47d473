"""A list with a cursor, drawn as a canvas: moving the cursor repaints two lines, a new value only its digits."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.message import Message

from tui.app.actions.action import HasActions
from tui.app.actions.registry import LIST
from tui.app.widgets.canvas import Canvas, Row, fit_row


class SelectableList(HasActions, Canvas, can_focus=True, actions=LIST):
    """Subclasses return the number of items and the row of each."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"list--header", "list--cursor", "list--dim"}

    class CursorMoved(Message):
        """The cursor moved to another item."""

        def __init__(self, sender: SelectableList, index: int) -> None:
            super().__init__()
            self.sender = sender
            self.index = index

        @property
        def control(self) -> SelectableList:
            """Lets a screen with several lists select the sender in ``@on``."""
            return self.sender

    class Activated(CursorMoved):
        """The item under the cursor was clicked or confirmed with Enter."""

    cursor = 0
    top = 0  # index of the item on the first line

    def count(self) -> int:
        raise NotImplementedError

    def header(self, width: int) -> Row | None:
        """Return the line above the items, if any."""
        return None

    def row(self, index: int, width: int) -> Row:
        raise NotImplementedError

    def placeholder(self, width: int, height: int) -> list[Row]:
        """Return what an empty list shows."""
        return []

    def draw(self, width: int, height: int) -> list[Row]:
        header = self.header(width)
        rows = [] if header is None else [fit_row(header, width, "list--header")]
        visible = max(height - len(rows), 1)
        total = self.count()
        if not total:
            return rows + self.placeholder(width, visible)
        self.cursor = min(max(self.cursor, 0), total - 1)
        self.top = min(max(self.top, self.cursor - visible + 1), self.cursor, max(total - visible, 0))
        for index in range(self.top, min(self.top + visible, total)):
            row = fit_row(self.row(index, width), width)
            if index == self.cursor:
                row = [(text, f"{style} list--cursor".strip()) for text, style in row]
            rows.append(row)
        return rows

    def action_cursor(self, by: int) -> None:
        self.move(self.cursor + by)

    def move(self, index: int) -> None:
        """Move the cursor to the item ``index``, or to the nearest."""
        total = self.count()
        index = min(max(index, 0), total - 1)
        if total and index != self.cursor:
            self.cursor = index
            self.redraw()
            self.post_message(self.CursorMoved(self, index))

    def on_click(self, event: events.Click) -> None:
        index = self.top + event.y - (0 if self.header(self.size.width) is None else 1)
        if 0 <= index < self.count():
            if index == self.cursor:
                self.post_message(self.Activated(self, index))
            self.move(index)

    def on_mouse_scroll_down(self) -> None:
        self.action_cursor(1)

    def on_mouse_scroll_up(self) -> None:
        self.action_cursor(-1)
