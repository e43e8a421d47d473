"""Edits an active run: a memory forecast, changes that make it faster or smaller, and a form for any change.

Every change is forecast before it is sent.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input, Label, Static

from engine.events.requests import SetRequest
from engine.events.types import Oom
from profiles.errors import SpecError, UserError
from profiles.optim import NOW
from tui.app.actions.registry import TUNING
from tui.app.base import AppModal
from tui.app.screens.confirm import ConfirmScreen
from tui.app.widgets.dialog import Dialog
from tui.app.widgets.forecast_bars import ForecastBars
from tui.app.widgets.lever_list import LeverList
from tui.app.widgets.number_field import NumberField
from tui.app.widgets.selectable_list import SelectableList
from tui.text import format as fmt

if TYPE_CHECKING:
    from engine.memory.calibration import PastRun
    from engine.memory.hardware import Hardware
    from engine.memory.search.levers import Lever
    from engine.runs.client import RunClient
    from profiles.spec import RunSpec

_BARS = {"device": 6, "host": 3}  # lines of the forecast of a run on a GPU, and of one on the CPU
_SHORT = 24  # lines of a terminal below which the bars have no legend
_NARROW = 72  # columns of a terminal below which the sequences per step are not shown
_SLIM = 60  # columns of a terminal below which the fields stand below each other


class TuningScreen(AppModal["dict[str, Any] | None"], actions=TUNING):
    """Dismisses with the changes that were sent, or with None."""

    CSS_PATH: ClassVar[list[str | PurePath]] = ["../styles/dialogs.tcss", "../styles/forecast.tcss"]

    class Measured(Message):
        """The memory available to the run, the peaks of past runs, and the memory levers."""

        def __init__(self, hardware: Hardware, past_runs: list[PastRun], levers: list[Lever]) -> None:
            super().__init__()
            self.hardware = hardware
            self.past_runs = past_runs
            self.levers = levers

    class Refused(Message):
        def __init__(self, reason: str) -> None:
            super().__init__()
            self.reason = reason

    class Sent(Message):
        def __init__(self, changes: dict[str, Any]) -> None:
            super().__init__()
            self.changes = changes

    def __init__(self, spec: RunSpec, client: RunClient, oom: Oom | None = None, title: str = "") -> None:
        """``spec`` includes the edits made so far; ``oom`` is the record about which the run asks the user.

        ``title``: what stands above it then.
        """
        super().__init__()
        self._spec = spec
        self._client = client
        self._oom = oom
        self._title = title or f"Live tuning: {_describe(spec)}"
        self._hardware: Hardware | None = None
        self._past_runs: list[PastRun] = []
        self._sending = False
        self._over: list[str] = []  # memories that the forecast of the form exceeds

    @property
    def answers_oom(self) -> bool:
        """Whether the run waits for an answer to an out-of-memory error."""
        return self._oom is not None

    @property
    def _lever(self) -> Lever | None:
        """The selected memory lever."""
        return self.query_one(LeverList).lever

    @property
    def _per_rank(self) -> int:
        """Sequences per step on one rank: micro × accum."""
        return self._spec.batch.sequences // self._spec.ranks

    def compose(self) -> ComposeResult:
        batch, oom, current = self._spec.batch, self._oom, _describe(self._spec)
        cancel = "Esc keeps it paused" if oom else "Esc cancels"  # q is a letter in the field of other edits
        with Dialog(f"Enter applies, Tab moves on, {cancel}", f"Enter applies, {cancel}", "Enter Tab Esc"):
            yield Static(self._title, classes="tuning-title", markup=False)
            if oom:
                yield ForecastBars("predicted at the OOM", "predicted; what was available is not known", id="failed")
            yield ForecastBars("available to this run", id="forecast")
            yield LeverList(current, applies="applies")
            with Horizontal(classes="edit-row", id="micro-row"):
                for name, value in (("micro", batch.micro), ("accum", self._spec.accum), ("context", batch.context)):
                    yield Label(name)
                    yield NumberField(str(value), id=name)
                yield Label(f"× {self._per_rank} sequences", classes="unit")
            with Horizontal(classes="edit-row"):
                yield Label("other edits", id="also-label")
                yield Input(id="also", placeholder="lr_scale=0.5 stop_step=900 val_every=200", compact=True)
            yield Static("", id="verdict", markup=False)

    def on_mount(self) -> None:
        self.query_one("#also", Input).cursor_blink = False  # a blinking cursor is bytes over ssh
        for bars in self.query(ForecastBars):
            bars.styles.height = 3
        if self._oom:
            self._show_oom(self._oom)
            self.query_one(LeverList).focus()
        else:
            self.query_one("#micro", NumberField).focus()
        self.measure()

    def on_resize(self) -> None:
        self._fit()

    def _fit(self) -> None:
        """Divide the lines of the terminal between the forecast and the levers."""
        width, height = self.app.size
        self.set_class(width < _NARROW, "narrow")
        self.set_class(width < _SLIM, "slim")
        self.set_class(height >= (_SHORT + 6 if self._oom else _SHORT), "tall")
        if self._hardware is not None:
            lines, levers = _BARS["host" if self._hardware.device == "cpu" else "device"], self.query_one(LeverList)
            self.query_one("#forecast", ForecastBars).styles.height = lines * 2 // 3 if height < _SHORT else lines
            most = 4 if height < _SHORT else 8 - len(self.query(ForecastBars))
            levers.styles.height = min(levers.count() + 1, most)

    def _show_oom(self, oom: Oom) -> None:
        from engine.memory.headroom import Headroom

        parts = oom.parts or {}
        memory = "host" if oom.where == "host" or "process" in parts else "device"
        self.query_one("#failed", ForecastBars).show([Headroom(memory, parts, oom.capacity)])

    @work(thread=True, exit_on_error=True)
    def measure(self) -> None:
        from engine.host.process import is_alive
        from engine.memory.calibration import load_past_runs
        from engine.memory.hardware import hardware_for
        from engine.memory.search.levers import levers

        trainer = self._client.run.trainer_identity()
        hardware = hardware_for(trainer.pid if trainer and is_alive(trainer) else None, self._spec.launch.gpus_per_node)
        if self._oom and self._oom.capacity:  # as the run measured it when it ran out of memory
            capacity = self._oom.capacity
            cpu = hardware.device == "cpu"
            hardware = replace(hardware, ram_free=capacity) if cpu else replace(hardware, device_free=capacity)
        past_runs = load_past_runs(hardware, self._client.run.home)
        found = levers(self._spec, hardware, past_runs)
        if self._oom:  # what is larger would run out of memory too, whatever the forecast says
            found = [lever for lever in found if lever.device_saved >= 0 and lever.host_saved >= 0]
        self.post_message(self.Measured(hardware, past_runs, found))

    @on(Measured)
    def _show_levers(self, message: Measured) -> None:
        from engine.memory.search.levers import LIVE

        self._hardware, self._past_runs = message.hardware, message.past_runs
        levers = self.query_one(LeverList)
        levers.show(message.levers)
        self._fit()
        untouched = self.query_one("#micro", NumberField).number == self._spec.batch.micro
        live = [lever for lever in message.levers if lever.when == LIVE]
        if self._oom and live and untouched:
            # A tight forecast would soon run out of memory again.
            levers.move(1 + message.levers.index(min(live, key=lambda lever: (not lever.fits, lever.tight))))
        self._update_forecast()

    @on(SelectableList.CursorMoved)
    def _fill_form(self) -> None:
        """Enter the changes of the selected lever in the form, unless they need a restart."""
        from engine.memory.search.levers import RESTART

        lever = self._lever
        spec = lever.spec if lever is not None and lever.when != RESTART else self._spec
        for name, value in (("micro", spec.batch.micro), ("accum", spec.accum), ("context", spec.batch.context)):
            self.query_one(f"#{name}", NumberField).value = str(value)
        self.query_one("#also", Input).value = ""
        self._update_forecast()

    def on_key(self, event: events.Key) -> None:
        """Enter a digit that is typed in the list as the micro-batch."""
        if isinstance(self.focused, LeverList) and (event.character or "").isdecimal():
            event.stop()
            micro = self.query_one("#micro", NumberField)
            self.set_focus(micro)
            micro.value = event.character or ""
            micro.cursor_position = 1

    @on(Input.Changed)
    def _follow_input(self, event: Input.Changed) -> None:
        """Adapt accumulation to the typed micro-batch, or the other way round, if the product allows it."""
        field = event.input
        if field.has_focus:
            self.query_one(Dialog).reveal(field)
            if self._lever is not None:
                self.query_one(LeverList).reset()
        if isinstance(field, NumberField) and field.id != "context" and field.has_focus and field.number:
            other = self.query_one("#accum" if field.id == "micro" else "#micro", NumberField)
            quotient, rest = divmod(self._per_rank, field.number)
            if quotient and not rest:
                other.value = str(quotient)
        self._update_forecast()

    def _requested(self) -> tuple[RunSpec, SetRequest]:
        """Return the spec that the form describes, and the request for it. Raises ``UserError``."""
        from engine.train.edits import check_stop_step, edited
        from profiles.registry import check_once, parse_edit

        micro, context = self._micro(), self.query_one("#context", NumberField).number or 0
        fields = [f"micro={micro}"] if micro != self._spec.batch.micro else []
        fields += [f"context={context}"] if context != self._spec.batch.context else []
        words = [*fields, *self.query_one("#also", Input).value.split()]
        changes = dict(parse_edit(word, "other edits") for word in words)
        check_once(words, "other edits")
        known = {key: value for key, value in changes.items() if value != NOW}  # what that means, the run knows
        spec = edited(self._spec, known, unlock=True) if known else self._spec
        if spec.train.stop_step != self._spec.train.stop_step:
            check_stop_step(spec, self._client.run.summary().step or 0)
        unlock = spec.tokens_per_step != self._spec.tokens_per_step
        return spec, SetRequest(changes=changes, unlock=unlock, force=bool(self._over))

    def _micro(self) -> int:
        """Return the micro-batch of the form. Raises ``SpecError`` if micro × accum does not fit the step."""
        micro, accum = (self.query_one(f"#{name}", NumberField).number or 0 for name in ("micro", "accum"))
        if micro * accum != self._per_rank:
            divisors = [str(n) for n in range(1, self._per_rank + 1) if self._per_rank % n == 0]
            raise SpecError(
                f"micro {micro} × accum {accum} is not {self._per_rank}; micro can be {', '.join(divisors)}"
            )
        return micro

    def _update_forecast(self) -> None:
        """Show the forecast of what the form describes, or what is wrong with it."""
        bars = self.query_one("#forecast", ForecastBars)
        try:
            spec, request = self._requested()
        except UserError as error:
            self._say(str(error), wrong=True)
            bars.mark_stale()
            return
        if self._hardware is None:
            self._say("measuring the memory of this machine …")
            return
        from engine.memory.calibration import calibrate
        from engine.memory.headroom import OVER, headroom_by_memory
        from engine.memory.search.levers import RESTART

        restart = self._lever if self._lever is not None and self._lever.when == RESTART else None
        found = calibrate(restart.spec if restart else spec, self._hardware, self._past_runs)
        memories = headroom_by_memory(found.forecast, self._hardware)
        self._over = [one.memory for one in memories if one.state == OVER and not restart]
        bars.show(memories, self._hardware.device)
        if restart:
            self._say(_restart_command(restart))
        elif self._over:
            self._say(_exceeds(self._over), wrong=True)
        elif request.unlock:
            self._say("changes the tokens per step; Enter asks before it is applied")
        else:
            only = "; DeepSpeed always offloads" if spec.launch.backend == "deepspeed" else ""
            self._say((found.description or "forecast, not calibrated by a run on this machine yet") + only)

    def _say(self, text: str, wrong: bool = False) -> None:
        line = self.query_one("#verdict", Static)
        line.update(text)
        line.set_class(wrong, "dialog-error")

    def _refuse(self, reason: str) -> None:
        self._say(reason, wrong=True)
        self.query_one(Dialog).reveal(self.query_one("#verdict"))

    @on(Input.Submitted)
    @on(SelectableList.Activated)
    def _apply(self) -> None:
        from engine.memory.search.levers import RESTART

        if self._sending:
            return
        try:
            spec, request = self._requested()
        except UserError as error:
            self._refuse(str(error))
            return
        if self._lever is not None and self._lever.when == RESTART:
            self._refuse(_restart_command(self._lever))
            return
        if not request.changes:
            self.dismiss(None)
        elif request.unlock or request.force:
            self._ask(spec, request)
        else:
            self._send(request)

    def _ask(self, spec: RunSpec, request: SetRequest) -> None:
        """Say what a locked change or one that is not predicted to fit leads to, and send it if the user insists."""
        lines = [f"{_describe(spec)}."]
        if request.unlock:
            before, after = (fmt.exact(one.tokens_per_step) for one in (self._spec, spec))
            lines.append(f"A step will have {after} tokens instead of {before}: later losses are not comparable.")
        if request.force:
            lines.append(f"{_exceeds(self._over).capitalize()}: the run may end out of memory.")

        def answered(answer: str | None) -> None:
            if answer == "apply":
                self._send(request)

        title = "Unlock and apply" if request.unlock else "Apply anyway"
        self.app.push_screen(ConfirmScreen("\n".join(lines), [("apply", title)]), answered)

    def _send(self, request: SetRequest) -> None:
        self._sending = True
        self._say("sending …")
        self.send(request)

    @work(exit_on_error=True)
    async def send(self, request: SetRequest) -> None:
        try:
            await self._client.request(request, by="app")
        except UserError as error:
            self.post_message(self.Refused(str(error)))
        else:
            self.post_message(self.Sent(request.changes))

    @on(Refused)
    def _refused(self, message: Refused) -> None:
        self._sending = False
        self._refuse(message.reason)

    @on(Sent)
    def _sent(self, message: Sent) -> None:
        self.dismiss(message.changes)

    def action_cancel(self) -> None:
        self.dismiss(None)


def _describe(spec: RunSpec) -> str:
    """Return the values of ``spec`` that are edited most, with a learning rate or an end that was edited."""
    text = f"micro {spec.batch.micro} × accum {spec.accum}, context {spec.batch.context}"
    text += f", lr_scale {spec.optim.lr_scale:g}" if spec.optim.lr_scale != 1 else ""
    return text + (f", stop_step {spec.train.stop_step}" if spec.train.stop_step else "")


def _exceeds(memories: list[str]) -> str:
    return f"the forecast exceeds the memory of the {' and the '.join(memories)}"


def describe_oom(oom: Oom) -> str:
    short = f", {fmt.size(oom.wanted)} short" if oom.wanted else ""
    return f"Out of memory in {oom.where} at micro {oom.micro}{short}"


def _restart_command(lever: Lever) -> str:
    overrides = " ".join(f"-s {key.partition('.')[2]}={new}" for key, (_, new) in lever.changed.items())
    return f"needs a restart: stop the run (S saves it), then mla-tui launch … {overrides} --resume CHECKPOINT"
