"""Micro × accum of a living run: a form that keeps the sequences of a step and forecasts before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Input, Label, Static

from profiles.errors import SpecError, UserError
from tui import format as words
from tui.widgets.forecast_bar import verdict
from tui.widgets.number import NumberField

if TYPE_CHECKING:
    from engine.jobs.client import Link
    from engine.memory.hardware import Hardware
    from engine.memory.levers import Lever
    from profiles.spec import RunSpec

_USUAL_END = "Enter applies at the next step, q cancels"


class EditScreen(ModalScreen["dict[str, Any] | None"]):
    """Dismisses with the changes that were sent, or with None."""

    CSS_PATH = "../styles/dialogs.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,escape", "cancel", "Cancel", show=False),
        Binding("down,j", "app.focus_next", show=False),
        Binding("up,k", "app.focus_previous", show=False),
    ]

    class Known(Message):
        """What this machine has, and what would make the run smaller at once."""

        def __init__(self, hardware: Hardware, ways: list[Lever]) -> None:
            super().__init__()
            self.hardware = hardware
            self.ways = ways

    class Refused(Message):
        def __init__(self, why: str) -> None:
            super().__init__()
            self.why = why

    class Sent(Message):
        def __init__(self, changes: dict[str, Any]) -> None:
            super().__init__()
            self.changes = changes

    def __init__(self, spec: RunSpec, link: Link, want: dict[str, Any] | None = None) -> None:
        """``spec`` is what the run is by now; ``want`` the ``oom`` record of a run that is held for an answer."""
        super().__init__()
        self._spec = spec
        self._link = link
        self._want = want
        self._micro, self._accum = spec.batch.micro, spec.accum
        self._hardware: Hardware | None = None
        self._sending = False

    @property
    def held(self) -> bool:
        """Whether the run waits for what is entered here."""
        return self._want is not None

    @property
    def _each_rank(self) -> int:
        """Sequences of a step on one rank: micro × accum."""
        return self._spec.batch.sequences // self._spec.ranks

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static("Out of memory" if self._want else "Edit the living run", classes="dialog-title")
            if self._want:
                yield Static(_described(self._want), classes="dialog-note", markup=False)
            with Horizontal(classes="edit-row"):
                yield Label("micro-batch")
                yield NumberField(str(self._micro), id="micro")
            with Horizontal(classes="edit-row"):
                yield Label("accumulation")
                yield NumberField(str(self._accum), id="accum")
            with Horizontal(classes="edit-row"):
                yield Label("also")
                yield Input(id="also", placeholder="lr_scale=0.5 stop_step=900 context=4096 --unlock", compact=True)
            yield Static(f"micro × accum stays {self._each_rank}, the sequences of a step", classes="dialog-note")
            yield Static("", id="verdict", markup=False)
            yield Static("", id="ways", classes="dialog-note", markup=False)
            end = "Enter applies, the run goes on; q leaves it waiting" if self._want else _USUAL_END
            yield Static(end, classes="dialog-note")

    def on_mount(self) -> None:
        self.query_one("#also", Input).cursor_blink = False  # a blinking cursor is bytes over ssh
        self.query_one("#micro", NumberField).focus()
        self.look()

    @work(thread=True, exit_on_error=True)
    def look(self) -> None:
        from engine.memory.hardware import detect_hardware
        from engine.memory.levers import LIVE, levers

        hardware = detect_hardware()
        self.post_message(self.Known(hardware, [way for way in levers(self._spec, hardware) if way.when == LIVE]))

    @on(Known)
    def _known(self, message: Known) -> None:
        self._hardware = message.hardware
        micro = self.query_one("#micro", NumberField)
        if self._want and message.ways and micro.number == self._micro:
            first = message.ways[0].spec
            micro.value, self.query_one("#accum", NumberField).value = str(first.batch.micro), str(first.accum)
        self.query_one("#ways", Static).update("\n".join(_offered(way) for way in message.ways[:3]))
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

    def _wanted(self) -> tuple[RunSpec, dict[str, Any]]:
        """The spec the form describes, and the request for it. Raises ``UserError``."""
        from engine.train.edits import edited

        changes, flags = _parsed(self.query_one("#also", Input).value)
        micro = self._cut()
        if micro != self._micro and not changes.keys() & {"batch.micro", "batch.accum", "batch.sequences"}:
            changes["micro"] = micro
        request = {"changes": changes, **flags}
        return (edited(self._spec, changes, unlock=flags["unlock"]) if changes else self._spec), request

    def _cut(self) -> int:
        """The micro-batch that the two numbers agree on. Raises ``SpecError``."""
        micro, accum = (self.query_one(f"#{name}", NumberField).number or 0 for name in ("micro", "accum"))
        if micro * accum != self._each_rank:
            fits = [str(n) for n in range(1, self._each_rank + 1) if self._each_rank % n == 0]
            raise SpecError(f"micro {micro} × accum {accum} is not {self._each_rank}; micro can be {', '.join(fits)}")
        return micro

    def _judge(self) -> None:
        try:
            spec, _ = self._wanted()
        except UserError as error:
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
            _, request = self._wanted()
        except UserError as error:
            self._say(str(error), wrong=True)
            return
        if not request["changes"]:
            self.dismiss(None)
            return
        self._sending = True
        self._say("sending …")
        self.send(request)

    @work(exit_on_error=True)
    async def send(self, request: dict[str, Any]) -> None:
        try:
            await self._link.request("set", by="app", **request)
        except UserError as error:
            self.post_message(self.Refused(str(error)))
        else:
            self.post_message(self.Sent(request["changes"]))

    @on(Refused)
    def _refused(self, message: Refused) -> None:
        self._sending = False
        self._say(message.why, wrong=True)

    @on(Sent)
    def _sent(self, message: Sent) -> None:
        self.dismiss(message.changes)

    def action_cancel(self) -> None:
        self.dismiss(None)


def _parsed(text: str) -> tuple[dict[str, Any], dict[str, bool]]:
    """Changes and flags as ``mla-tui set`` takes them. Raises ``SpecError``."""
    from profiles.registry import parse_override

    entered = text.split()
    flags = {"unlock": "--unlock" in entered, "force": "--force" in entered}
    return dict(parse_override(word) for word in entered if word not in ("--unlock", "--force")), flags


def _described(want: dict[str, Any]) -> str:
    """What the run ran out of, and what held most of it."""
    wanted = f", wanted {words.size(want['wanted'])}" if want.get("wanted") else ""
    parts = sorted((want.get("parts") or {}).items(), key=lambda part: -part[1])[:3]
    held = " · ".join(f"{name} {words.size(size)}" for name, size in parts)
    return f"in {want.get('where')} at micro {want.get('micro')}{wanted}\n{held}"


def _offered(way: Lever) -> str:
    saved = max(way.device, way.host)
    speed = f"{way.speed:+.0%} tokens/s" if abs(way.speed) >= 0.005 else "as fast"
    return f"{way.change}: −{words.size(saved)}, {speed} (estimate)"
