"""Shows one line of the log whole."""

from __future__ import annotations

import time

from textual.app import ComposeResult
from textual.widgets import Static

from tui.app.actions.registry import LOG_LINE
from tui.app.base import AppModal
from tui.app.state.log_buffer import LogLine
from tui.app.widgets.dialog import Dialog


class LogLineScreen(AppModal[None], actions=LOG_LINE):
    """Scrolls if the text does not fit."""

    CSS_PATH = "../styles/dialogs.tcss"

    def __init__(self, line: LogLine) -> None:
        super().__init__()
        self._line = line

    def compose(self) -> ComposeResult:
        with Dialog("q closes, C copies", "q closes"):
            when = time.strftime("%d %b %Y %H:%M:%S", time.localtime(self._line.time))
            yield Static(when, classes="dialog-title", markup=False)
            yield Static(self._line.shown, markup=False)

    def action_scroll_lines(self, by: int) -> None:
        self.query_one(Dialog).scroll_relative(y=by, animate=False)

    def action_copy(self) -> None:
        self.app.copy_to_clipboard(self._line.text)
        self.dismiss()
