"""Shows what was found of this machine and proposes a profile for it; Enter writes it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from textual import on, work
from textual.app import ComposeResult
from textual.message import Message
from textual.widgets import Static

from profiles.errors import UserError
from tui.app.actions.registry import PROPOSAL
from tui.app.base import AppModal
from tui.app.widgets.dialog import TextDialog
from tui.text.proposal_text import found_lines, proposal_lines

if TYPE_CHECKING:
    from engine.memory.hardware import Hardware
    from engine.memory.proposed_profile import ProposedProfile


class ProposalScreen(AppModal[Path | None], actions=PROPOSAL):
    """Dismisses with the file of the profile that was written, or with None."""

    CSS_PATH = "../styles/dialogs.tcss"

    class Proposed(Message):
        """What was found, the free name of the profile, and the profile or why there is none."""

        def __init__(self, hardware: Hardware, name: str, found: ProposedProfile | UserError) -> None:
            super().__init__()
            self.hardware, self.name, self.found = hardware, name, found

    def __init__(self) -> None:
        super().__init__()
        self._text = self._profile = ""
        self._proposed: ProposalScreen.Proposed | None = None

    def compose(self) -> ComposeResult:
        with TextDialog("Esc closes"):
            yield Static("A profile for this machine", classes="dialog-title")
            yield Static("looking at this machine …", id="found", markup=False)
            yield Static("", id="proposed", markup=False)
            yield Static("", id="message", classes="dialog-error", markup=False)

    def on_mount(self) -> None:
        self.query_one("#message", Static).display = False
        self.propose()

    @work(thread=True, exit_on_error=True)
    def propose(self) -> None:
        from engine.memory.calibration import load_past_runs
        from engine.memory.hardware import detect_hardware
        from engine.memory.proposed_profile import propose

        hardware = detect_hardware()
        try:
            found: ProposedProfile | UserError = propose(hardware, load_past_runs(hardware, self.app.store.home))
        except UserError as error:
            found = error
        self.post_message(self.Proposed(hardware, _free_name(), found))

    @on(Proposed)
    def _take(self, message: Proposed) -> None:
        self._proposed = message
        self._show(message)

    def on_resize(self) -> None:
        if self._proposed is not None:
            self.call_after_refresh(self._show, self._proposed)

    def _show(self, message: Proposed) -> None:
        found = self.query_one("#found", Static)
        width = found.content_size.width
        found.update("\n".join(found_lines(message.hardware, width)))
        if isinstance(message.found, UserError):
            self._say(str(message.found))
            return
        self._text, self._profile = message.found.text, message.name
        lines = proposal_lines(message.found, message.hardware, width)
        self.query_one("#proposed", Static).update("\n" + "\n".join(lines))
        keys = f"Enter writes it as profile “{self._profile}”, Esc skips", "Enter writes it, Esc skips", "Enter, Esc"
        self.query_one(TextDialog).show_keys(*keys)

    def _say(self, problem: str) -> None:
        message = self.query_one("#message", Static)
        message.update(problem)
        message.display = True
        self.query_one(TextDialog).reveal(message)

    def action_write(self) -> None:
        """Write the proposed profile; what hinders that is said in the dialog."""
        from profiles.user_profile import write_profile

        if not self._text:
            return
        try:
            self.dismiss(write_profile(self._text, self._profile))
        except UserError as error:
            self._say(str(error))

    def action_cancel(self) -> None:
        self.dismiss(None)


def _free_name() -> str:
    """Return ``here``, or ``here_2`` and so on where there is such a profile."""
    from profiles.registry import names

    taken, number, name = set(names()), 1, "here"
    while name in taken:
        number += 1
        name = f"here_{number}"
    return name
