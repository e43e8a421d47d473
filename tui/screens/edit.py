"""Micro × accum of a living run: a form that keeps the sequences of a step and forecasts before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Input, Label, Static

from profiles.errors import SpecError, UserError
from tui.widgets.forecast_bar import verdict
from tui.widgets.number import NumberField

if TYPE_CHECKING:
    from engine.jobs.client import Link
    from engine.memory.hardware import Hardware
    from profiles.spec import RunSpec
    from tui.run_view import RunView


class EditScreen(ModalScreen["dict[str, int] | None"]):
    """Dismisses with the changes that were sent, or with None."""

    CSS_PATH = "../styles/dialogs.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,escape", "cancel", "Cancel", show=False),
        Binding("down,j", "app.focus_next", show=False),
        Binding("up,k", "app.focus_previous", show=False),
    ]

    class Known(Message):
        """What this machine has."""

        def __init__(self, hardware: Hardware) -> None:
            super().__init__()
            self.hardware = hardware

    class Refused(Message):
        def __init__(self, why: str) -> None:
            super().__init__()
            self.why = why

    class Sent(Message):
        def __init__(self, changes: dict[str, int]) -> None:
            super().__init__()
            self.changes = changes

    def __init__(self, spec: RunSpec, view: RunView, link: Link) -> None:
        super().__init__()
        self._spec = spec
        self._link = link
        self._micro = view.micro or spec.batch.micro
        self._accum = view.accum or spec.accum
        self._hardware: Hardware | None = None
        self._sending = False

    @property
    def _each_rank(self) -> int:
        """Sequences of a step on one rank: micro × accum."""
        return self._spec.batch.sequences // self._spec.ranks

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static("Edit the living run", classes="dialog-title")
            with Horizontal(classes="edit-row"):
                yield Label("micro-batch")
                yield NumberField(str(self._micro), id="micro")
            with Horizontal(classes="edit-row"):
                yield Label("accumulation")
                yield NumberField(str(self._accum), id="accum")
            yield Static(f"micro × accum stays {self._each_rank}, the sequences of a step", classes="dialog-note")
            yield Static("", id="verdict", markup=False)
            yield Static("Enter applies at the next step, q cancels", classes="dialog-note")

    def on_mount(self) -> None:
        self.query_one("#micro", NumberField).focus()
        self.look()

    @work(thread=True, exit_on_error=True)
    def look(self) -> None:
        from engine.memory.hardware import detect_hardware

        self.post_message(self.Known(detect_hardware()))

    @on(Known)
    def _known(self, message: Known) -> None:
        self._hardware = message.hardware
        self._judge()

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        """The field that was typed in leads, the other follows where it can."""
        field = event.input
        if isinstance(field, NumberField) and field.has_focus and field.number:
            other = self.query_one("#accum" if field.id == "micro" else "#micro", NumberField)
            follows, rest = divmod(self._each_rank, field.number)
            if follows and not rest:
                other.value = str(follows)
        self._judge()

    def _wanted(self) -> RunSpec:
        """The spec the form describes. Raises ``SpecError``."""
        micro, accum = (self.query_one(f"#{name}", NumberField).number or 0 for name in ("micro", "accum"))
        if micro * accum != self._each_rank:
            fits = [str(n) for n in range(1, self._each_rank + 1) if self._each_rank % n == 0]
            raise SpecError(f"micro {micro} × accum {accum} is not {self._each_rank}; micro can be {', '.join(fits)}")
        return self._spec.with_batch(micro=micro)

    def _judge(self) -> None:
        try:
            spec = self._wanted()
        except SpecError as error:
            self._say(str(error), wrong=True)
            return
        if self._hardware is None:
            self._say("looking at this machine …")
            return
        from engine.memory.forecast import forecast

        text, fits = verdict(forecast(spec, self._hardware), self._hardware)
        self._say(f"forecast: {text}" + ("" if fits else ": too much"), wrong=not fits)

    def _say(self, text: str, wrong: bool = False) -> None:
        line = self.query_one("#verdict", Static)
        line.update(text)
        line.set_class(wrong, "dialog-error")

    @on(Input.Submitted)
    def _submitted(self) -> None:
        if self._sending:
            return
        try:
            spec = self._wanted()
        except SpecError as error:
            self._say(str(error), wrong=True)
            return
        if (spec.batch.micro, spec.accum) == (self._micro, self._accum):
            self.dismiss(None)
            return
        self._sending = True
        self._say("sending …")
        self.send({"micro": spec.batch.micro, "accum": spec.accum})

    @work(exit_on_error=True)
    async def send(self, changes: dict[str, int]) -> None:
        try:
            await self._link.request("set", by="app", changes=changes)
        except UserError as error:
            self.post_message(self.Refused(str(error)))
        else:
            self.post_message(self.Sent(changes))

    @on(Refused)
    def _refused(self, message: Refused) -> None:
        self._sending = False
        self._say(message.why, wrong=True)

    @on(Sent)
    def _sent(self, message: Sent) -> None:
        self.dismiss(message.changes)

    def action_cancel(self) -> None:
        self.dismiss(None)
