"""Asks before something is stopped or deleted; Cancel has the focus."""

from __future__ import annotations

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Button, Static

from tui.app.actions.registry import CONFIRM
from tui.app.base import AppModal
from tui.app.widgets.dialog import Dialog

_BUTTON = 5  # cells of a button beside its title, the last three of them empty


def stop_answers(stalled: bool) -> list[tuple[str, str]]:
    """Return how a run can be stopped. The trainer of one that is stalled may read no request, but can be killed."""
    answers = [("save", "Save and stop"), ("nosave", "Stop without saving")]
    return [*answers, ("kill", "Kill it")] if stalled else answers


class ConfirmScreen(AppModal[str], actions=CONFIRM):
    """Dismisses with the id of the answer, or with ``cancel``."""

    CSS_PATH = "../styles/dialogs.tcss"

    def __init__(self, question: str, answers: list[tuple[str, str]]) -> None:
        super().__init__()
        self._question = question
        self._answers = answers

    def compose(self) -> ComposeResult:
        with Dialog("Tab selects, Enter confirms, q cancels", "Enter confirms, q cancels", "Enter, q back"):
            yield Static(self._question, markup=False)
            with Horizontal(classes="dialog-buttons"):
                yield Button("Cancel", id="cancel", compact=True)
                for id, title in self._answers:
                    yield Button(title, id=id, compact=True)

    def on_resize(self) -> None:
        """Put the answers below each other where they do not fit beside each other."""
        row = self.query_one(".dialog-buttons")
        titles = ["Cancel", *(title for _, title in self._answers)]
        self.set_class(sum(cell_len(title) + _BUTTON for title in titles) - 3 > row.size.width, "stacked")

    def on_mount(self) -> None:
        self.query_one("#cancel", Button).focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id or "cancel")

    def action_cancel(self) -> None:
        self.dismiss("cancel")
