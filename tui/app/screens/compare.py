"""Several runs over each other, by step, tokens or time. Living ones go on growing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import PurePath
from typing import Any, ClassVar, NamedTuple

from textual import on, work
from textual.app import ComposeResult
from textual.message import Message

from engine.events.run_dir import RunDir
from profiles.errors import UserError
from tui.app.actions.registry import COMPARE
from tui.app.base import AppScreen
from tui.app.screens.panes import SMOOTHINGS
from tui.app.state import raster
from tui.app.state.comparison import AXES, LETTERS, REQUIRED_SERIES, STEP, TIME, ComparedRun, RunReader, RunUpdate
from tui.app.state.spec_diff import flat_spec
from tui.app.widgets.bars import Heading, KeyBar
from tui.app.widgets.legend import Legend
from tui.app.widgets.overlay_chart import OverlayChart, labelled_lines, run_style
from tui.app.widgets.spec_table import SpecTable
from tui.text import format as fmt

_EVERY = 2.0  # seconds between two looks at the living runs
_TOGETHER = 0.1  # seconds in which what was read is painted at once
_POINTS = 2  # of a line for each cell across: one a dot


class Shown(NamedTuple):
    """A series as a person calls it; ``text`` writes one of its values."""

    name: str
    title: str
    text: Callable[[float | None], str]


SERIES = (
    Shown("loss", "loss", fmt.loss),
    Shown("val_loss", "val", fmt.loss),
    Shown("tok_s", "tok/s", fmt.count),
    Shown("lr", "lr", fmt.rate),
    Shown("grad_norm", "grad", fmt.loss),
    Shown("step_s", "s/step", fmt.loss),
)
_AXIS_TITLES = {"step": "by step", "tokens": "by tokens", "time": "by time since the first step"}


class CompareScreen(AppScreen[None], actions=COMPARE):
    """A worker reads the runs and posts what it found; only the handlers here touch widgets."""

    CSS_PATH: ClassVar[list[str | PurePath]] = ["../styles/monitor.tcss", "../styles/compare.tcss"]

    class Told(Message):
        """What is new of run number ``index``, or why it could not be read."""

        def __init__(self, index: int, update: RunUpdate | None, error: str = "") -> None:
            super().__init__()
            self.index, self.update, self.error = index, update, error

    class Specs(Message):
        def __init__(self, specs: list[dict[str, Any]]) -> None:
            super().__init__()
            self.specs = specs

    def __init__(self, runs: list[RunDir], hint: str = "") -> None:
        """``hint``: what to say until all is read, and where only one run is compared."""
        super().__init__()
        self._runs = runs
        self._hint = hint
        self.runs = [ComparedRun(letter, {"id": run_dir.id}) for letter, run_dir in zip(LETTERS, runs, strict=False)]
        self._series = self._axis = self._smoothing = 0
        self._errors: dict[int, str] = {}
        self._unread = len(self.runs)
        self._wanted = asyncio.Event()  # a series that has not been read yet is shown
        self._stale = self._due = False

    def compose(self) -> ComposeResult:
        yield Heading("compare")
        yield OverlayChart()
        yield OverlayChart(time_axis=True)
        yield SpecTable(self.runs)
        yield Legend(self.runs)
        yield KeyBar()

    def on_mount(self) -> None:
        self._charts = list(self.query(OverlayChart))
        self._legend = self.query_one(Legend)
        self._legend.styles.height = len(self.runs) + 2  # its head and the line above it
        self._legend.focus()
        self.call_after_refresh(self.follow)
        self._paint()

    @work(group="read", exit_on_error=True)
    async def follow(self) -> None:
        """Read every run, and the living ones again, for as long as the screen stands."""
        readers = [RunReader(run_dir) for run_dir in self._runs]
        while True:
            self._wanted.clear()
            for index, reader in enumerate(readers):
                names = dict.fromkeys((SERIES[self._series].name, *REQUIRED_SERIES))
                try:
                    update = await reader.poll(names)
                except UserError as error:
                    self.post_message(self.Told(index, None, str(error)))
                    continue
                if update is not None:
                    self.post_message(self.Told(index, update))
            try:
                async with asyncio.timeout(_EVERY):
                    await self._wanted.wait()
            except TimeoutError:
                pass

    @on(Told)
    def _told(self, message: Told) -> None:
        self._errors.pop(message.index, None)
        if message.update is None:
            self._errors[message.index] = message.error
        else:
            self.runs[message.index].apply(message.update)
        self._unread = sum(not run.curves and i not in self._errors for i, run in enumerate(self.runs))
        if not self._due:  # ten runs read one after another are painted together
            self._due = True
            self.set_timer(_TOGETHER, self._paint)

    def on_screen_resume(self) -> None:
        if self._stale:
            self._paint()

    def on_resize(self) -> None:
        self.call_after_refresh(self._paint)

    def _paint(self) -> None:
        """Show what is known. Below a dialog a repaint costs the whole screen, so it waits until the dialog is gone."""
        self._due = False
        self._stale = not (self.is_active and self.is_mounted)
        if self._stale:
            return
        shown, axis = SERIES[self._series], AXES[self._axis]
        self.set_class(axis == TIME, "time")
        chart = self._charts[axis == TIME]
        chart.show(self._titles(chart, shown, axis), self._lines(shown.name, axis), x_end=self._furthest(axis))
        self._legend.axis, self._legend.series = axis, (shown.name, shown.title)
        self._legend.text = shown.text
        self._legend.redraw()
        self.query_one(Heading).show(
            title=f"compare · {_runs(len(self.runs))}", note=self._note(), warn=bool(self._errors)
        )

    def _titles(self, chart: OverlayChart, shown: Shown, axis: str) -> list[str]:
        plain = f"{shown.title} {_AXIS_TITLES[axis]}"
        notes = [note for note in (SMOOTHINGS[self._smoothing][1], "log" if chart.log_axis else "") if note]
        short = " · ".join([plain, *notes])
        delta = f"Δ: to {self.runs[self._legend.baseline].letter} at the last {axis} both have reached"
        return [f"{short} · {delta}", short, plain]

    def _lines(self, name: str, axis: str) -> list[Any]:
        """The run under the cursor is drawn last, over the others."""
        width = self._charts[axis == TIME].size.width or self.size.width
        weight = SMOOTHINGS[self._smoothing][0]
        order = sorted(range(len(self.runs)), key=lambda i: (i == self._legend.cursor, -i))
        lines = []
        for i in order:
            run = self.runs[i]
            if not run.hidden:
                points = run.points(name, axis, width * _POINTS)
                lines.append((run.letter, run_style(i), raster.smooth(points, weight) if weight else points))
        return labelled_lines(lines, width)

    def _furthest(self, axis: str) -> float | None:
        """Where a step axis can get at most."""
        steps = [run.summary.get("steps") for run in self.runs if not run.hidden]
        return max((s for s in steps if s), default=None) if axis == STEP else None

    def _note(self) -> str:
        if self._errors:
            return next(iter(self._errors.values()))
        if self._unread:
            return f"reading {_runs(self._unread)} …"
        name, axis = SERIES[self._series].name, AXES[self._axis]
        known = [run for run in self.runs if run.curves]
        if without := [run.letter for run in known if name in run.curves and run.last_x(name, axis) is None]:
            return f"{' '.join(without)}: no {SERIES[self._series].title} {_AXIS_TITLES[axis].split(' since')[0]}"
        return self._hint

    @on(Legend.CursorMoved)
    def _moved(self) -> None:
        self._paint()

    @on(Legend.Activated)
    def _picked(self) -> None:
        self.action_hide()

    @on(Specs)
    def _specs(self, message: Specs) -> None:
        self.query_one(SpecTable).show(message.specs)

    @work(group="specs", exclusive=True, exit_on_error=True)
    async def read_specs(self) -> None:
        specs = await asyncio.to_thread(lambda: [flat_spec(run_dir) for run_dir in self._runs])
        self.post_message(self.Specs(specs))

    # What the keys do

    def action_back(self) -> None:
        if self.has_class("specs"):
            self.action_differences()
        else:
            self.dismiss()

    def action_open(self) -> None:
        """Open the run under the cursor."""
        self.app.open_run(self._runs[self._legend.cursor])

    def action_metric(self, by: int) -> None:
        self._series = (self._series + by) % len(SERIES)
        self._wanted.set()
        self._paint()

    def action_x_axis(self) -> None:
        self._axis = (self._axis + 1) % len(AXES)
        self._paint()
        self.call_after_refresh(self._paint)  # the other chart has its size now

    def action_smooth(self) -> None:
        self._smoothing = (self._smoothing + 1) % len(SMOOTHINGS)
        self._paint()

    def action_log_axis(self) -> None:
        for chart in self._charts:
            chart.log_axis = not chart.log_axis
        self._paint()

    def action_hide(self) -> None:
        """Hide the run under the cursor, or show it again."""
        run = self.runs[self._legend.cursor]
        run.hidden = not run.hidden
        self._paint()

    def action_baseline(self) -> None:
        """Measure the others against the run under the cursor."""
        self._legend.baseline = self._legend.cursor
        self._paint()

    def action_differences(self) -> None:
        self.toggle_class("specs")
        if self.has_class("specs"):
            self.read_specs()
            self.query_one(SpecTable).focus()
        else:
            self._legend.focus()
            self.call_after_refresh(self._paint)


def _runs(count: int) -> str:
    return f"{count} run" if count == 1 else f"{count} runs"
