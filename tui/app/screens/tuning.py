"""The tuning drawer of a living run: what it holds, the ways to make it smaller by what they cost, and a form for any
change. Everything is forecast before it is sent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widgets import Input, Label, Static

from profiles.errors import SpecError, UserError
from tui.app.actions.registry import TUNING
from tui.app.base import AppModal
from tui.app.widgets.forecast_bars import ForecastBars
from tui.app.widgets.lever_list import LeverList
from tui.app.widgets.number_field import NumberField
from tui.app.widgets.selectable_list import SelectableList
from tui.text import format as fmt

if TYPE_CHECKING:
    from engine.memory.calibration import PastRun
    from engine.memory.hardware import Hardware
    from engine.memory.levers import Lever
    from engine.runs.client import RunClient
    from profiles.spec import RunSpec

_BARS = {"device": 6, "host": 3}  # lines for the memories of a run on a card, and of one without
_SHORT = 24  # a terminal below this many lines gets the bars without their legend
_NARROW = 72  # columns below which the step's sequences have no room beside its numbers


class TuningScreen(AppModal["dict[str, Any] | None"], actions=TUNING):
    """Dismisses with the changes that were sent, or with None."""

    CSS_PATH: ClassVar[list[str | PurePath]] = ["../styles/dialogs.tcss", "../styles/forecast.tcss"]

    class Known(Message):
        """What the run can have on this machine, what earlier ones peaked at, and what would make it smaller."""

        def __init__(self, hardware: Hardware, runs: list[PastRun], ways: list[Lever]) -> None:
            super().__init__()
            self.hardware = hardware
            self.runs = runs
            self.ways = ways

    class Refused(Message):
        def __init__(self, why: str) -> None:
            super().__init__()
            self.why = why

    class Sent(Message):
        def __init__(self, changes: dict[str, Any]) -> None:
            super().__init__()
            self.changes = changes

    def __init__(self, spec: RunSpec, link: RunClient, want: dict[str, Any] | None = None) -> None:
        """``spec`` is what the run is by now; ``want`` the ``oom`` record of a run that is held for an answer."""
        super().__init__()
        self._spec = spec
        self._link = link
        self._want = want
        self._hardware: Hardware | None = None
        self._runs: list[PastRun] = []
        self._sending = False

    @property
    def held(self) -> bool:
        """Whether the run waits for what is entered here."""
        return self._want is not None

    @property
    def _way(self) -> Lever | None:
        """That is chosen in the list."""
        return self.query_one(LeverList).lever

    @property
    def _each_rank(self) -> int:
        """Sequences of a step on one rank: micro × accum."""
        return self._spec.batch.sequences // self._spec.ranks

    def compose(self) -> ComposeResult:
        batch, want = self._spec.batch, self._want
        now = f"micro {batch.micro} × accum {self._spec.accum}, context {batch.context}"
        with Vertical(classes="dialog"):
            yield Static(
                _described(want) if want else f"Tune the living run: {now}", classes="tuning-title", markup=False
            )
            if want:
                yield ForecastBars("when it ran out", id="failed")
            yield ForecastBars("free to it", id="then")
            yield LeverList(now, applies="applies")
            with Horizontal(classes="edit-row", id="micro-row"):
                yield Label("micro-batch")
                yield NumberField(str(batch.micro), id="micro")
                yield Label("accumulation", classes="second")
                yield NumberField(str(self._spec.accum), id="accum")
                yield Label(f"= {self._each_rank} sequences", classes="unit")
            with Horizontal(classes="edit-row"):
                yield Label("also")
                yield Input(id="also", placeholder="lr_scale=0.5 stop_step=900 context=4096 --unlock", compact=True)
            yield Static("", id="verdict", markup=False)
            leave = "q leaves it waiting" if want else "q cancels"
            yield Static(f"Enter applies, Tab goes on, {leave}", classes="tuning-note")

    def on_mount(self) -> None:
        self.query_one("#also", Input).cursor_blink = False  # a blinking cursor is bytes over ssh
        for bars in self.query(ForecastBars):
            bars.styles.height = 3
        if self._want:
            self._show_failure(self._want)
            self.query_one(LeverList).focus()
        else:
            self.query_one("#micro", NumberField).focus()
        self.look()

    def on_resize(self) -> None:
        self._fit()

    def _fit(self) -> None:
        """Give the bars and the ways the lines that this terminal has."""
        width, height = self.app.size
        self.set_class(width < _NARROW, "narrow")
        self.set_class(height >= (_SHORT + 6 if self._want else _SHORT), "tall")
        if self._hardware is not None:
            full, ways = _BARS["host" if self._hardware.device == "cpu" else "device"], self.query_one(LeverList)
            self.query_one("#then", ForecastBars).styles.height = full * 2 // 3 if height < _SHORT else full
            room = 4 if height < _SHORT else 8 - len(self.query(ForecastBars))
            ways.styles.height = min(ways.count() + 1, room)

    def _show_failure(self, want: dict[str, Any]) -> None:
        from engine.memory.headroom import Headroom

        parts = want.get("parts") or {}
        capacity = want.get("capacity") or sum(parts.values())  # where nobody knows, it was what it held
        at = "host" if want.get("where") == "host" or "process" in parts else "device"
        self.query_one("#failed", ForecastBars).show([Headroom(at, parts, capacity)])

    @work(thread=True, exit_on_error=True)
    def look(self) -> None:
        from engine.host.files import read_json
        from engine.host.process import is_alive
        from engine.memory.calibration import calibrated_forecaster, load_past_runs
        from engine.memory.hardware import hardware_for
        from engine.memory.levers import levers

        who = read_json(self._link.run.trainer_identity_path)
        hardware = hardware_for(who["pid"] if is_alive(who) else None)
        if self._want and self._want.get("capacity"):  # the run itself has measured what it can have
            place = "ram_free" if hardware.device == "cpu" else "device_free"
            hardware = replace(hardware, **{place: self._want["capacity"]})
        runs = load_past_runs(hardware, self._link.run.home)
        self.post_message(self.Known(hardware, runs, levers(self._spec, hardware, calibrated_forecaster(runs))))

    @on(Known)
    def _known(self, message: Known) -> None:
        from engine.memory.levers import LIVE

        self._hardware, self._runs = message.hardware, message.runs
        ways = self.query_one(LeverList)
        ways.show(message.ways)
        self._fit()
        untouched = self.query_one("#micro", NumberField).number == self._spec.batch.micro
        live = [way for way in message.ways if way.when == LIVE]
        if self._want and live and untouched:
            # What the forecast only just finds room for would have the person asked again.
            ways.move(1 + message.ways.index(min(live, key=lambda way: (not way.fits, way.tight))))
        self._judge()

    @on(SelectableList.CursorMoved)
    def _chosen(self, message: SelectableList.CursorMoved) -> None:
        """Fill the form with what the way changes; one that needs a new start is only shown."""
        from engine.memory.levers import RESTART, UNLOCK

        way = self._way
        spec = way.spec if way is not None and way.when != RESTART else self._spec
        changes = [f"{key.partition('.')[2]}={new}" for key, (_, new) in way.changed.items()] if way else []
        self.query_one("#micro", NumberField).value = str(spec.batch.micro)
        self.query_one("#accum", NumberField).value = str(spec.accum)
        unlocked = way is not None and way.when == UNLOCK
        self.query_one("#also", Input).value = " ".join([*changes, "--unlock"]) if unlocked else ""
        self._judge()

    def on_key(self, event: events.Key) -> None:
        """A digit typed at the list is meant for the micro-batch."""
        if isinstance(self.focused, LeverList) and (event.character or "").isdecimal():
            event.stop()
            micro = self.query_one("#micro", NumberField)
            self.set_focus(micro)
            micro.value = event.character or ""
            micro.cursor_position = 1

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        """The field that was typed in leads, the other follows where it can."""
        field = event.input
        if field.has_focus and self._way is not None:
            self.query_one(LeverList).reset()
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
        if micro != self._spec.batch.micro and not changes.keys() & {"batch.micro", "batch.accum", "batch.sequences"}:
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
        """Say what the form would make of the run, or what is wrong with it."""
        bars = self.query_one("#then", ForecastBars)
        try:
            spec, _ = self._wanted()
        except UserError as error:
            self._say(str(error), wrong=True)
            bars.mark_stale()
            return
        if self._hardware is None:
            self._say("looking at this machine …")
            return
        from engine.memory.calibration import calibrate
        from engine.memory.headroom import OVER, headroom_by_memory
        from engine.memory.levers import RESTART

        anew = self._way if self._way is not None and self._way.when == RESTART else None
        found = calibrate(anew.spec if anew else spec, self._hardware, self._runs)
        places = headroom_by_memory(found.forecast, self._hardware)
        bars.show(places, self._hardware.device)
        if anew:
            self._say(_anew(anew))
        elif over := [place.memory for place in places if place.state == OVER]:
            self._say(f"the forecast is more than the {' and the '.join(over)} can give", wrong=True)
        else:
            self._say(found.description or "forecast, not calibrated by a run on this machine yet")

    def _say(self, text: str, wrong: bool = False) -> None:
        line = self.query_one("#verdict", Static)
        line.update(text)
        line.set_class(wrong, "dialog-error")

    @on(Input.Submitted)
    @on(SelectableList.Activated)
    def _apply(self) -> None:
        from engine.memory.levers import RESTART

        if self._sending:
            return
        try:
            _, request = self._wanted()
        except UserError as error:
            self._say(str(error), wrong=True)
            return
        if self._way is not None and self._way.when == RESTART:
            self._say(_anew(self._way), wrong=True)
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
    short = f", {fmt.size(want['wanted'])} short" if want.get("wanted") else ""
    return f"Out of memory in {want.get('where')} at micro {want.get('micro')}{short}"


def _anew(way: Lever) -> str:
    overrides = " ".join(f"-s {key.partition('.')[2]}={new}" for key, (_, new) in way.changed.items())
    return f"needs a new start: stop the run (x saves it), then mla-tui launch … {overrides} --resume CHECKPOINT"
