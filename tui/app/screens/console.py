"""Shows what the trainer and the supervisor of a run printed: the end of console.log, and new lines as they come."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from textual import on, work
from textual.app import ComposeResult
from textual.message import Message

from engine.events.phases import is_active
from tui.app.actions.registry import CONSOLE
from tui.app.base import AppScreen
from tui.app.state.console_end import read_end
from tui.app.widgets.bars import Heading, KeyBar
from tui.app.widgets.text_pane import TextPane

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir

_EVERY = 1.0  # seconds between two polls of the file


class ConsoleScreen(AppScreen[None], actions=CONSOLE):
    """A worker reads the file; a message shows it."""

    CSS_PATH = "../styles/console.tcss"

    class Read(Message):
        """The end of the file, and what to say about it."""

        def __init__(self, text: str, note: str) -> None:
            super().__init__()
            self.text, self.note = text, note

    def __init__(self, run: RunDir) -> None:
        super().__init__()
        self._run = run

    def compose(self) -> ComposeResult:
        yield Heading(f"console.log · {self._run.shown_name}")
        yield TextPane()
        yield KeyBar()

    def on_mount(self) -> None:
        self.query_one(TextPane).focus()
        self.follow()

    @work(group="console", exit_on_error=True)
    async def follow(self) -> None:
        """Read the file whenever it has changed, until the screen closes."""
        before = None
        while True:
            if self.is_active:
                now = await asyncio.to_thread(_read_end, self._run)
                if now != before:
                    before = now
                    self.post_message(self.Read(*now))
            await asyncio.sleep(_EVERY)

    @on(Read)
    def _show(self, message: Read) -> None:
        self.query_one(Heading).show(note=message.note)
        self.query_one(TextPane).replace(message.text)


def _read_end(run: RunDir) -> tuple[str, str]:
    """Return the end of the file as text, and a note."""
    path = run.console_path
    try:
        text, skipped = read_end(path)
    except OSError as error:
        return f"{path}: cannot be read: {error.strerror or error}", ""
    if not text:
        text = "the run has printed nothing yet" if is_active(run.summary().phase) else "the run printed nothing"
    return text, "its end; mla-tui logs prints all of it" if skipped else ""
