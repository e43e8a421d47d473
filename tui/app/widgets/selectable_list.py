"""A list with a cursor, drawn as a canvas: moving the cursor repaints two lines, a new number its digits."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.message import Message

from tui.app.actions.action import HasActions
from tui.app.actions.registry import LIST
from tui.app.widgets.canvas import Canvas, Row, fit


class SelectableList(HasActions, Canvas, can_focus=True, actions=LIST):
    """Subclasses say how many items there are and how one looks."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"list--header", "list--cursor", "list--dim"}

    class CursorMoved(Message):
        """The cursor stands on another item."""

        def __init__(self, picker: SelectableList, index: int) -> None:
            super().__init__()
            self.picker = picker
            self.index = index

        @property
        def control(self) -> SelectableList:
            """Lets a screen with several lists tell by a selector whose message it wants."""
            return self.picker

    class Activated(CursorMoved):
        """The item under the cursor was clicked while it was already chosen."""

    cursor = 0
    first = 0  # the item on the top line

    def count(self) -> int:
        raise NotImplementedError

    def header(self, width: int) -> Row | None:
        """The line above the items, if any."""
        return None

    def row(self, index: int, width: int) -> Row:
        raise NotImplementedError

    def placeholder(self, width: int, height: int) -> list[Row]:
        """What stands there when there are no items."""
        return []

    def draw(self, width: int, height: int) -> list[Row]:
        head = self.header(width)
        rows = [] if head is None else [fit(head, width, "list--header")]
        room = max(height - len(rows), 1)
        total = self.count()
        if not total:
            return rows + self.placeholder(width, room)
        self.cursor = min(max(self.cursor, 0), total - 1)
        self.first = min(max(self.first, self.cursor - room + 1), self.cursor, max(total - room, 0))
        for index in range(self.first, min(self.first + room, total)):
            row = fit(self.row(index, width), width)
            if index == self.cursor:
                row = [(text, f"{style} list--cursor".strip()) for text, style in row]
            rows.append(row)
        return rows

    def action_cursor(self, by: int) -> None:
        self.move(self.cursor + by)

    def move(self, index: int) -> None:
        """Put the cursor on the item ``index``, or on the nearest there is."""
        total = self.count()
        index = min(max(index, 0), total - 1)
        if total and index != self.cursor:
            self.cursor = index
            self.redraw()
            self.post_message(self.CursorMoved(self, index))

    def on_click(self, event: events.Click) -> None:
        index = self.first + event.y - (0 if self.header(self.size.width) is None else 1)
        if 0 <= index < self.count():
            if index == self.cursor:
                self.post_message(self.Activated(self, index))
            self.move(index)

    def on_mouse_scroll_down(self) -> None:
        self.action_cursor(1)

    def on_mouse_scroll_up(self) -> None:
        self.action_cursor(-1)
