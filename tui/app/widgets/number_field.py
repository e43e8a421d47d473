"""Edits a whole number; letters are not consumed, so they reach the screen as keys."""

from __future__ import annotations

from textual import events
from textual.widgets import Input


class NumberField(Input):
    def __init__(self, value: str = "", *, id: str | None = None) -> None:
        super().__init__(value, id=id, restrict=r"[0-9]*", compact=True, max_length=9, select_on_focus=True)
        self.cursor_blink = False  # a blinking cursor is bytes over ssh

    def check_consume_key(self, key: str, character: str | None) -> bool:
        return character is not None and character.isdecimal()

    def on_key(self, event: events.Key) -> None:
        if event.character is not None and event.is_printable and not event.character.isdecimal():
            event.prevent_default()  # Input's own handler would consume it

    @property
    def number(self) -> int | None:
        """The number in the field, or None while it is empty."""
        return int(self.value) if self.value.isdecimal() else None
