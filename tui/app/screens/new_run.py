"""Launches a new run: a form over a profile, with its memory forecast and memory levers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import PurePath
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.suggester import SuggestFromList
from textual.widgets import Input, Label, Static

from profiles import registry
from profiles.errors import ForceNeeded, SpecError, UserError
from profiles.paths import expand
from profiles.unreached import unreached
from tui.app.actions.registry import NEW_RUN
from tui.app.base import AppScreen
from tui.app.state import launch_fields as fields
from tui.app.state.packs import Packed, packed_phases
from tui.app.widgets.bars import Heading, KeyBar
from tui.app.widgets.canvas import Row
from tui.app.widgets.data_line import DataLine
from tui.app.widgets.forecast_bars import ForecastBars
from tui.app.widgets.lever_list import LeverList
from tui.app.widgets.number_field import NumberField
from tui.app.widgets.selectable_list import SelectableList
from tui.text import format as fmt
from tui.text import way_table
from tui.text.run_cost_text import time_of

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir
    from engine.memory.calibration import PastRun
    from engine.memory.hardware import Hardware
    from engine.memory.prediction import Prediction
    from engine.runs.store import RunStore
    from profiles.spec import RunSpec

_TALL = 32  # lines of a terminal from which the forecast and the levers both fit
_SHORT = 24  # below it the description gives a line


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
    """Each key press builds the spec again and checks it; the form itself checks nothing."""

    CSS_PATH: ClassVar[list[str | PurePath]] = ["../styles/new_run.tcss", "../styles/forecast.tcss"]

    class Measured(Message):
        """The memory of this machine, the peaks of past runs on it, and the profile detected for it."""

        def __init__(self, hardware: Hardware, past_runs: list[PastRun], profile: str) -> None:
            super().__init__()
            self.hardware = hardware
            self.past_runs = past_runs
            self.profile = profile

    class Predicted(Message):
        """What was found for the spec ``asked``."""

        def __init__(self, asked: RunSpec, found: Prediction) -> None:
            super().__init__()
            self.asked = asked
            self.found = found

    class Launched(Message):
        def __init__(self, run: RunDir) -> None:
            super().__init__()
            self.run = run

    class Refused(Message):
        """``launch``: start it anyway, where the user may insist."""

        def __init__(self, reason: str, launch: Callable[[], object] | None) -> None:
            super().__init__()
            self.reason = reason
            self.launch = launch

    def __init__(self, store: RunStore) -> None:
        super().__init__()
        self._store = store
        self._base: RunSpec | None = None  # the selected profile, unchanged
        self._spec: RunSpec | None = None  # what would be launched; None while the form has an error
        self._hardware: Hardware | None = None
        self._past_runs: list[PastRun] = []
        self._launching = False
        self._packed: dict[str, Packed] = {}

    def compose(self) -> ComposeResult:
        yield Heading("new run")
        with Horizontal(id="form"):
            yield ProfileList(registry.names())
            with Vertical(id="right"):
                yield Static("", id="description", markup=False)
                for name, _, label in fields.FIELDS:
                    with Horizontal(classes="field"):
                        yield Label(label)
                        yield NumberField(id=name)
                with Horizontal(classes="field"):
                    yield Label("data")
                    yield Input(id="phase", compact=True, max_length=64)
                with Horizontal(classes="field"):
                    yield Label("name")
                    yield Input(id="name", placeholder="the run's id", compact=True, max_length=64)
                with Horizontal(classes="field"):
                    yield Label("overrides")
                    yield Input(id="also", placeholder="lr=3e-4 memory.loss=fused save_every=500", compact=True)
                yield Static("", id="size", markup=False)
        yield DataLine()
        yield ForecastBars()
        yield LeverList("what is entered above")
        yield Static("", id="message", markup=False)
        yield Static("", id="command", markup=False)
        yield KeyBar()

    def on_mount(self) -> None:
        for name in ("phase", "name", "also"):
            self.query_one(f"#{name}", Input).cursor_blink = False
        self._fit()
        self.query_one(ProfileList).focus()
        self._load_profile()
        self.measure()

    def on_resize(self) -> None:
        self._fit()

    def _fit(self) -> None:
        height = self.app.size.height
        self.set_class(height >= _TALL, "tall")
        self.set_class(height < _SHORT, "short")

    @work(thread=True, exit_on_error=True)
    def measure(self) -> None:
        from engine.memory.calibration import load_past_runs
        from engine.memory.hardware import detect_hardware

        hardware = detect_hardware()
        past_runs = load_past_runs(hardware, self._store.home)
        self.post_message(self.Measured(hardware, past_runs, registry.detect_profile()))

    @on(Measured)
    def _apply_measured(self, message: Measured) -> None:
        self._hardware, self._past_runs = message.hardware, message.past_runs
        self.query_one(Heading).show(note=message.hardware.name)
        profiles = self.query_one(ProfileList)
        # A user who has already moved the cursor keeps their selection.
        if profiles.cursor == 0 and message.profile in profiles.names:
            profiles.move(profiles.names.index(message.profile))
        self._update_spec()

    @property
    def _profile(self) -> str:
        profiles = self.query_one(ProfileList)
        return profiles.names[profiles.cursor]

    @on(SelectableList.CursorMoved, "#profiles")
    def _load_profile(self) -> None:
        """Fill the form from the selected profile."""
        try:
            self._base = registry.load(self._profile)
        except SpecError as error:
            self._base = None
            self._show_error(str(error))
            return
        base = self._base
        if self._hardware is not None:
            self.query_one(ForecastBars).mark_stale()  # of the profile before, until this one is predicted
        self.query_one("#description", Static).update(base.description)
        self._offer_data(base)
        for name, value in fields.values(base).items():
            field = self.query_one(f"#{name}", NumberField)
            field.value, field.placeholder = ("", "auto") if value is None else (str(value), "")
        self._update_spec()

    def _offer_data(self, base: RunSpec) -> None:
        """Complete the name of the data by the phases that were packed; → takes what is offered."""
        root = expand(base.data.root, "data.root")
        self._packed = {packed.phase: packed for packed in packed_phases(root)}
        field = self.query_one("#phase", Input)
        others = [phase for phase in self._packed if phase != base.data.phase]
        missing = "" if os.path.isdir(root / base.data.phase) else " (missing)"
        field.placeholder = base.data.phase + missing + (f"; also {', '.join(others)}" if others else "")
        field.suggester = SuggestFromList(list(self._packed))

    def _data_changes(self, base: RunSpec, also: list[str]) -> list[str]:
        """Return the overrides for the data in the form, with a vocabulary that has all of its ids.

        A vocabulary that the user names in ``also`` holds.
        """
        phase = self.query_one("#phase", Input).value.strip()
        if phase in ("", base.data.phase):
            return []
        ids = self._packed[phase].vocab_size if phase in self._packed else 0
        named = {word.partition("=")[0] for word in also} & fields.names(["model.vocab_size"])
        larger = [f"model.vocab_size={ids}"] if ids > base.model.config.vocab_size and not named else []
        return [f"data.phase={phase}", *larger]

    def overrides(self) -> list[str]:
        """Return what the form changes of the profile, as ``key=value``. Raises ``SpecError`` for an empty field."""
        base = self._base
        assert base is not None
        changed: list[str] = []
        for name, key, label in fields.FIELDS:
            number, default = self.query_one(f"#{name}", NumberField).number, fields.values(base)[name]
            if number is None and default is not None:
                raise SpecError(f"{label}: write a number; the profile says {default}")
            # sequences = micro × accum is kept, so a changed micro alone would change accum.
            keeps_accum = name == "accum" and any(c.startswith("batch.micro") for c in changed)
            if number is not None and (number != default or keeps_accum):
                changed.append(f"{key}={number}")
        also = self.query_one("#also", Input).value.split()
        overrides = [*changed, *self._data_changes(base, also), *also]
        registry.check_once(overrides)
        return overrides

    @on(Input.Changed)
    def _update_spec(self) -> None:
        """Build the spec from the form and show its forecast, or what is wrong with it."""
        if self._base is None:
            return
        try:
            changed = self.overrides()
            self._spec = registry.load(self._profile, changed)
        except SpecError as error:
            self._show_error(str(error))
            return
        spec = self._spec
        self.query_one(DataLine).look(self._profile, changed)
        self._show_text(f" $ {fields.command(self._profile, changed, self._run_name())}", "#command")
        self._show_text(fields.describe_step(spec), "#size")
        self._show_text("", "#message")  # the forecast may have one
        self.query_one(KeyBar).hide(frozenset())
        if self._hardware is not None:
            self.predict(spec, self._hardware)

    @work(thread=True, exclusive=True, group="predict", exit_on_error=True)
    def predict(self, spec: RunSpec, hardware: Hardware) -> None:
        """Search the ways to run ``spec``, beside the keys that are typed."""
        from engine.memory.prediction import predict

        self.post_message(self.Predicted(spec, predict(spec, hardware, self._past_runs)))

    @on(Predicted)
    def _show_prediction(self, message: Predicted) -> None:
        found, hardware = message.found, self._hardware
        if message.asked is not self._spec or hardware is None:
            return  # a later key has changed the form
        self.query_one(ForecastBars).show(found.headrooms, hardware.device)
        self._show_text("; ".join(filter(None, (found.fit or found.elsewhere, *unreached(found.spec)))), "#message")
        lever_list = self.query_one(LeverList)
        lever_list.show(found.levers)
        lever_list.reset()
        spec, cost = found.spec, found.cost
        lines = [fields.describe_step(spec), way_table.chosen_briefly(spec, found.open)]
        lines += [f"about {fmt.count(cost.rate.tok_s)} tokens/s, {cost.rate.kind}: {time_of(cost)}"]
        self._show_text("\n".join(filter(None, [*lines, found.calibrated.description])), "#size")
        if message.asked.auto_micro:
            for name, value in (("micro", spec.batch.micro), ("accum", spec.accum)):
                self.query_one(f"#{name}", NumberField).placeholder = f"auto: {value}"

    @on(SelectableList.Activated, "#levers")
    def _apply_lever(self) -> None:
        """Enter the changes of the selected lever in the form."""
        lever = self.query_one(LeverList).lever
        if lever is None:
            return
        of_key = {key: name for name, key, _ in fields.FIELDS}
        also = self.query_one("#also", Input)
        words = [word for word in also.value.split() if word.partition("=")[0] not in fields.names(lever.changed)]
        for key, (_, new) in lever.changed.items():
            if key in of_key:
                self.query_one(f"#{of_key[key]}", NumberField).value = str(new)
            else:
                words.append(f"{key}={new}")
        also.value = " ".join(words)

    def action_reduce_memory(self) -> None:
        """Focus the levers, or the profiles again; in a short terminal the levers take lines from the forecast."""
        self.toggle_class("levers")
        self.query_one(LeverList if self.has_class("levers") else ProfileList).focus()

    def _run_name(self) -> str | None:
        return self.query_one("#name", Input).value.strip() or None

    def _show_error(self, text: str) -> None:
        self._spec = None
        self.query_one(KeyBar).hide(frozenset(("launch", "queue")))
        self._show_text(text, "#message")
        self._show_text("", "#command")
        self.query_one(ForecastBars).mark_stale()

    def _show_text(self, text: str, where: str) -> None:
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
        self._show_text("launching …", "#message")
        self.launch(self._spec, self._run_name(), queue)

    @work(group="launch", exit_on_error=True)
    async def launch(self, spec: RunSpec, name: str | None, queue: bool, force: bool = False) -> None:
        from engine.runs.launch import launch

        try:
            run = await asyncio.to_thread(launch, self._store, spec, name=name, queue=queue, force=force)
        except ForceNeeded as error:
            self.post_message(self.Refused(error.reason, lambda: self.launch(spec, name, queue, force=True)))
        except UserError as error:
            self.post_message(self.Refused(str(error), None))
        else:
            self.post_message(self.Launched(run))

    @on(Launched)
    def _launched(self, message: Launched) -> None:
        """Replace this screen with the monitor, so that going back leads to the runs."""
        from tui.app.screens.monitor import MonitorScreen

        self.app.switch_screen(MonitorScreen(message.run))

    @on(Refused)
    def _refused(self, message: Refused) -> None:
        self._launching = False
        self._show_text(message.reason, "#message")
        if message.launch is not None:
            self._ask_to_insist(message.reason, message.launch)

    @work
    async def _ask_to_insist(self, reason: str, launch: Callable[[], object]) -> None:
        from tui.app.screens.confirm import ConfirmScreen

        question = ConfirmScreen(f"{reason}.\nLaunch it anyway?", [("launch", "Launch")])
        if await self.app.push_screen_wait(question) == "launch":
            self._launching = True
            launch()
