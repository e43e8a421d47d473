"""Prompts for a text, and optionally a number, in one line that is hidden while closed."""

from __future__ import annotations

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input, Label

from tui.app.widgets.number_field import NumberField


class Prompt(Horizontal):
    """``topic`` identifies the question; Enter in either field submits."""

    class Submitted(Message):
        def __init__(self, topic: str, text: str, number: int | None) -> None:
            super().__init__()
            self.topic = topic
            self.text = text
            self.number = number

    class Changed(Message):
        """The text or the number was edited."""

    topic = ""

    def compose(self) -> ComposeResult:
        yield Label("", id="prompt-label")
        yield Input(id="prompt-text", compact=True, select_on_focus=False)
        yield Label("", id="prompt-number-label")
        yield NumberField(id="prompt-number")

    def on_mount(self) -> None:
        self.display = False
        self.query_one("#prompt-text", Input).cursor_blink = False  # a blinking cursor is bytes over ssh

    def open(self, topic: str, label: str, hint: str, number: tuple[str, int] | None = None, value: str = "") -> None:
        """Show the prompt with ``value``; ``number`` is the label and initial value of a second field."""
        self.topic = topic
        self.query_one("#prompt-label", Label).update(f" {label} ")
        field = self.query_one("#prompt-text", Input)
        field.placeholder, field.value = hint, value
        field.cursor_position = len(value)
        for part in ("#prompt-number", "#prompt-number-label"):
            self.query_one(part).display = number is not None
        if number is not None:
            self.query_one("#prompt-number-label", Label).update(f" {number[0]} ")
            self.query_one("#prompt-number", NumberField).value = str(number[1])
        self.display = True
        field.focus()

    def close(self) -> None:
        self.topic, self.display = "", False

    @property
    def text(self) -> str:
        return self.query_one("#prompt-text", Input).value

    @property
    def number(self) -> int | None:
        return self.query_one("#prompt-number", NumberField).number

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        if self.topic:
            self.post_message(self.Changed())

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if self.topic:
            self.post_message(self.Submitted(self.topic, self.text, self.number))
