"""Choosing a profile, changing what matters, seeing what it needs, launching it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import PurePath
from typing import TYPE_CHECKING, ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widgets import Input, Label, Static

from profiles import registry
from profiles.errors import SpecError, UserError
from tui.app.actions.registry import NEW_RUN
from tui.app.base import AppScreen
from tui.app.widgets.bars import Heading, KeyBar
from tui.app.widgets.canvas import Row
from tui.app.widgets.forecast_bars import ForecastBars
from tui.app.widgets.lever_list import LeverList
from tui.app.widgets.number_field import NumberField
from tui.app.widgets.selectable_list import SelectableList
from tui.text import format as fmt

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir
    from engine.memory.calibration import PastRun
    from engine.memory.hardware import Hardware
    from engine.runs.store import RunStore
    from profiles.spec import RunSpec

# field, the key it overrides, its label
_FIELDS = (
    ("micro", "batch.micro", "micro-batch"),
    ("accum", "batch.accum", "accumulation"),
    ("context", "batch.context", "context"),
    ("steps", "train.steps", "steps"),
)

_ROOMY = 32  # lines on which the forecast and the ways to make it smaller both fit


class ProfileList(SelectableList):
    def __init__(self, names: list[str]) -> None:
        super().__init__(id="profiles")
        self.names = names

    def header(self, width: int) -> Row | None:
        return [(" profile", "list--header")]

    def count(self) -> int:
        return len(self.names)

    def row(self, index: int, width: int) -> Row:
        return [(f" {self.names[index]}", "")]


class NewRunScreen(AppScreen[None], actions=NEW_RUN):
    """Every key press builds the spec anew: it is the spec, not the form, that is right or wrong."""

    CSS_PATH: ClassVar[list[str | PurePath]] = ["../styles/new_run.tcss", "../styles/forecast.tcss"]

    class Known(Message):
        """What this machine has, what runs peaked at on it, and which profile it starts with."""

        def __init__(self, hardware: Hardware, runs: list[PastRun], profile: str) -> None:
            super().__init__()
            self.hardware = hardware
            self.runs = runs
            self.profile = profile

    class Launched(Message):
        def __init__(self, run: RunDir) -> None:
            super().__init__()
            self.run = run

    class Refused(Message):
        def __init__(self, why: str) -> None:
            super().__init__()
            self.why = why

    def __init__(self, store: RunStore) -> None:
        super().__init__()
        self._store = store
        self._base: RunSpec | None = None  # the profile as it stands in its file
        self._spec: RunSpec | None = None  # what would be launched; None while the form is wrong
        self._hardware: Hardware | None = None
        self._runs: list[PastRun] = []
        self._launching = False

    def compose(self) -> ComposeResult:
        yield Heading("new run")
        with Horizontal(id="form"):
            yield ProfileList(registry.names())
            with Vertical(id="right"):
                yield Static("", id="description", markup=False)
                for name, _, label in _FIELDS:
                    with Horizontal(classes="field"):
                        yield Label(label)
                        yield NumberField(id=name)
                with Horizontal(classes="field"):
                    yield Label("name")
                    yield Input(id="name", placeholder="the run's id", compact=True, max_length=64)
                with Horizontal(classes="field"):
                    yield Label("also")
                    yield Input(id="also", placeholder="lr=3e-4 memory.loss=fused save_every=500", compact=True)
                yield Static("", id="facts", markup=False)
        yield ForecastBars()
        yield LeverList("what is entered above")
        yield Static("", id="message", markup=False)
        yield Static("", id="command", markup=False)
        yield KeyBar()

    def on_mount(self) -> None:
        for name in ("name", "also"):
            self.query_one(f"#{name}", Input).cursor_blink = False
        self.query_one(ProfileList).focus()
        self._take_profile()
        self.look()

    def on_resize(self, event: events.Resize) -> None:
        self.set_class(event.size.height >= _ROOMY, "roomy")

    @work(thread=True, exit_on_error=True)
    def look(self) -> None:
        from engine.memory.calibration import load_past_runs
        from engine.memory.hardware import detect_hardware

        hardware = detect_hardware()
        self.post_message(self.Known(hardware, load_past_runs(hardware, self._store.home), registry.detect_profile()))

    @on(Known)
    def _known(self, message: Known) -> None:
        self._hardware, self._runs = message.hardware, message.runs
        self.query_one(Heading).show(note=message.hardware.name)
        profiles = self.query_one(ProfileList)
        # A person who has already moved on keeps what they chose.
        if profiles.cursor == 0 and message.profile in profiles.names:
            profiles.move(profiles.names.index(message.profile))
        self._judge()

    @property
    def _profile(self) -> str:
        profiles = self.query_one(ProfileList)
        return profiles.names[profiles.cursor]

    @on(SelectableList.CursorMoved, "#profiles")
    def _take_profile(self) -> None:
        """Fill the form from the chosen profile."""
        try:
            self._base = registry.load(self._profile)
        except SpecError as error:
            self._base = None
            self._wrong(str(error))
            return
        base = self._base
        self.query_one("#description", Static).update(base.description)
        values = (base.batch.micro, base.accum, base.batch.context, base.train.steps)
        for (name, _, _), value in zip(_FIELDS, values, strict=True):
            self.query_one(f"#{name}", NumberField).value = str(value)
        self._judge()

    def overrides(self) -> list[str]:
        """What the form changes of the profile, as ``key=value``. Raises ``SpecError`` for an empty field."""
        base = self._base
        assert base is not None
        held = {
            "micro": base.batch.micro,
            "accum": base.accum,
            "context": base.batch.context,
            "steps": base.train.steps,
        }
        changed: list[str] = []
        for name, key, label in _FIELDS:
            number = self.query_one(f"#{name}", NumberField).number
            if number is None:
                raise SpecError(f"{label}: write a number; the profile says {held[name]}")
            # micro and accum go together: sequences = micro × accum, and a changed micro alone would change accum.
            if number != held[name] or (name == "accum" and any(c.startswith("batch.micro") for c in changed)):
                changed.append(f"{key}={number}")
        return changed + self.query_one("#also", Input).value.split()

    @on(Input.Changed)
    def _judge(self) -> None:
        """Build the spec, forecast it, say what is wrong."""
        if self._base is None:
            return
        try:
            changed = self.overrides()
            self._spec = registry.load(self._profile, changed)
        except SpecError as error:
            self._wrong(str(error))
            return
        spec = self._spec
        self._say(f" $ {self._command(changed)}", "#command")
        facts = f"{spec.model.name}: {fmt.count(spec.model.config.params)} parameters"
        facts += f"\n{fmt.exact(spec.batch.sequences)} sequences, {fmt.exact(spec.tokens_per_step)} tokens a step"
        self._say(facts, "#facts")
        self._say("", "#message")
        if self._hardware is not None and (calibration := self._foresee(spec, self._hardware)):
            self._say(f"{facts}\n{calibration}", "#facts")

    def _foresee(self, spec: RunSpec, hardware: Hardware) -> str:
        """Show what the run would hold and what would make it smaller; what corrects the forecast, in words."""
        from engine.memory.calibration import calibrate, calibrated_forecaster
        from engine.memory.headroom import headroom_by_memory
        from engine.memory.levers import levers
        from engine.memory.strategies import resolve_strategy

        told = calibrated_forecaster(self._runs)
        spec = resolve_strategy(spec, hardware, told)
        found = calibrate(spec, hardware, self._runs)
        self.query_one(ForecastBars).show(headroom_by_memory(found.forecast, hardware), hardware.device)
        ways = self.query_one(LeverList)
        ways.show(levers(spec, hardware, told))
        ways.reset()
        return found.description

    @on(SelectableList.Activated, "#levers")
    def _take_way(self) -> None:
        """Enter into the form what the chosen way changes."""
        way = self.query_one(LeverList).lever
        if way is None:
            return
        fields = {key: name for name, key, _ in _FIELDS}
        also = self.query_one("#also", Input)
        entered = [word for word in also.value.split() if word.partition("=")[0] not in _names(way.changed)]
        for key, (_, new) in way.changed.items():
            if key in fields:
                self.query_one(f"#{fields[key]}", NumberField).value = str(new)
            else:
                entered.append(f"{key}={new}")
        also.value = " ".join(entered)

    def action_reduce_memory(self) -> None:
        """To the ways to make it smaller and back; where both do not fit they stand in place of the bars."""
        ways = self.query_one(LeverList)
        self.toggle_class("smaller")
        (ways if self.has_class("smaller") else self.query_one(ProfileList)).focus()

    def _command(self, changed: list[str]) -> str:
        import shlex

        parts = ["mla-tui", "launch", "-p", self._profile]
        own = {key for _, key, _ in _FIELDS}
        for text in changed:
            parts += ["-s", text.partition(".")[2] if text.partition("=")[0] in own else text]
        name = self._typed_name()
        return shlex.join(parts + (["--name", name] if name else []))

    def _typed_name(self) -> str | None:
        return self.query_one("#name", Input).value.strip() or None

    def _wrong(self, text: str) -> None:
        self._spec = None
        self._say(text, "#message")
        self._say("", "#command")
        self.query_one(ForecastBars).mark_stale()

    def _say(self, text: str, where: str) -> None:
        line = self.query_one(where, Static)
        if line.content != text:
            line.update(text)

    @on(Input.Submitted)
    async def _submitted(self) -> None:
        await self.run_action("launch")

    def action_launch(self) -> None:
        self._launch(queue=False)

    def action_queue(self) -> None:
        self._launch(queue=True)

    def _launch(self, queue: bool) -> None:
        if self._spec is None or self._launching:
            return
        self._launching = True
        self._say("launching …", "#message")
        self.launch(self._spec, self._typed_name(), queue)

    @work(group="launch", exit_on_error=True)
    async def launch(self, spec: RunSpec, name: str | None, queue: bool) -> None:
        from engine.runs.launch import launch

        try:
            run = await asyncio.to_thread(launch, self._store, spec, name=name, queue=queue)
        except UserError as error:
            self.post_message(self.Refused(str(error)))
        else:
            self.post_message(self.Launched(run))

    @on(Launched)
    def _launched(self, message: Launched) -> None:
        """The monitor takes this screen's place, so that going back leads to the runs."""
        from tui.app.screens.monitor import MonitorScreen

        self.app.switch_screen(MonitorScreen(message.run))

    @on(Refused)
    def _refused(self, message: Refused) -> None:
        self._launching = False
        self._say(message.why, "#message")


def _names(keys: Iterable[str]) -> set[str]:
    """The keys as a person may have written them: with their table or without."""
    return {name for key in keys for name in (key, key.partition(".")[2])}
