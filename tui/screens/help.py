"""Every key of a screen, from the action registry."""

from __future__ import annotations

from typing import ClassVar

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from tui import actions

_NAMES = {actions.HOME: "Runs", actions.NEW_RUN: "New run", actions.MONITOR: "Monitor"}
_NAMES |= {actions.CHECKPOINTS: "Checkpoints", actions.DATA: "Data"}


def help_lines(place: str) -> list[tuple[str, str]]:
    """(keys, what they do) for one screen."""
    return [(action.key_names, f"{action.title}: {action.help}") for action in actions.on(place)]


class HelpScreen(ModalScreen[None]):
    """Any of the usual ways out closes it; it scrolls where it does not fit."""

    CSS_PATH = "../styles/dialogs.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,escape,question_mark,f1,enter", "dismiss", "Close", show=False),
        Binding("j", "scroll(1)", show=False),
        Binding("k", "scroll(-1)", show=False),
    ]

    def __init__(self, place: str) -> None:
        super().__init__()
        self._place = place

    def compose(self) -> ComposeResult:
        lines = help_lines(self._place)
        wide = max(cell_len(keys) for keys, _ in lines)
        with VerticalScroll(id="help", classes="dialog"):
            yield Static(f"{_NAMES[self._place]}: keys", classes="dialog-title")
            for keys, text in lines:
                yield Static(f"{keys:<{wide}}  {text}", markup=False, classes="help-line")
            yield Static("q closes this", classes="dialog-note")

    def action_scroll(self, by: int) -> None:
        self.query_one("#help", VerticalScroll).scroll_relative(y=by, animate=False)
