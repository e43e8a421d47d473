"""Compares runs in one chart, by step, tokens or time; active runs are read again as they grow."""

from __future__ import annotations

import asyncio
from pathlib import PurePath
from typing import Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.message import Message

from engine.events.metric import Metric
from engine.events.metrics import METRICS
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

_EVERY = 2.0  # seconds between two polls of the active runs
_DELAY = 0.1  # seconds until updates are drawn, so that several are drawn together
_POINTS = 2  # points of a line per column of cells: one per column of dots


_METRICS = [metric for metric in METRICS.values() if metric.compare]
_AXIS_TITLES = {"step": "by step", "tokens": "by tokens", "time": "by time since the first step"}


class CompareScreen(AppScreen[None], actions=COMPARE):
    """A worker reads the runs and posts messages; only the handlers of messages and keys touch widgets."""

    CSS_PATH: ClassVar[list[str | PurePath]] = ["../styles/monitor.tcss", "../styles/compare.tcss"]

    class Updated(Message):
        """What is new in run number ``index``, or why it could not be read."""

        def __init__(self, index: int, update: RunUpdate | None, error: str = "") -> None:
            super().__init__()
            self.index, self.update, self.error = index, update, error

    class SpecsRead(Message):
        def __init__(self, specs: list[dict[str, Any]]) -> None:
            super().__init__()
            self.specs = specs

    def __init__(self, runs: list[RunDir], hint: str = "") -> None:
        """``hint`` is shown in the heading if there is nothing more important."""
        super().__init__()
        self._runs = runs
        self._hint = hint
        self.runs = [ComparedRun(letter, run_dir.id) for letter, run_dir in zip(LETTERS, runs, strict=False)]
        self._metric = self._axis = self._smoothing = 0
        self._errors: dict[int, str] = {}
        self._unread = len(self.runs)
        self._metric_changed = asyncio.Event()  # the new metric has not been read yet
        self._stale = False  # draw when the screen is on top again
        self._draw_scheduled = False

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
        self._legend.styles.height = len(self.runs) + 2  # its header and the line above it
        self._legend.focus()
        self.call_after_refresh(self.follow)
        self._paint()

    @work(group="read", exit_on_error=True)
    async def follow(self) -> None:
        """Read every run, and the active ones again, until the screen closes."""
        readers = [RunReader(run_dir) for run_dir in self._runs]
        while True:
            self._metric_changed.clear()
            for index, reader in enumerate(readers):
                series = dict.fromkeys((_METRICS[self._metric].name, *REQUIRED_SERIES))
                try:
                    update = await reader.poll(series)
                except UserError as error:
                    self.post_message(self.Updated(index, None, str(error)))
                    continue
                if update is not None:
                    self.post_message(self.Updated(index, update))
            try:
                async with asyncio.timeout(_EVERY):
                    await self._metric_changed.wait()
            except TimeoutError:
                pass

    @on(Updated)
    def _apply_update(self, message: Updated) -> None:
        self._errors.pop(message.index, None)
        if message.update is None:
            self._errors[message.index] = message.error
        else:
            self.runs[message.index].apply(message.update)
        self._unread = sum(not run.series and i not in self._errors for i, run in enumerate(self.runs))
        if not self._draw_scheduled:  # runs that are read one after another are drawn together
            self._draw_scheduled = True
            self.set_timer(_DELAY, self._paint)

    def on_screen_resume(self) -> None:
        if self._stale:
            self._paint()

    def on_resize(self) -> None:
        self.call_after_refresh(self._paint)

    def _paint(self) -> None:
        """Draw what is known; below a dialog only once it closes, because drawing there repaints the whole screen."""
        self._draw_scheduled = False
        self._stale = not (self.is_active and self.is_mounted)
        if self._stale:
            return
        metric, axis = _METRICS[self._metric], AXES[self._axis]
        self.set_class(axis == TIME, "time")
        chart = self._charts[axis == TIME]
        chart.show(self._titles(chart, metric, axis), self._lines(metric.name, axis), x_end=self._last_step(axis))
        self._legend.axis, self._legend.series = axis, (metric.name, metric.title)
        self._legend.format_value = fmt.formatter(metric.format)
        self._legend.redraw()
        self.query_one(Heading).show(
            title=f"compare · {_runs(len(self.runs))}", note=self._note(), warn=bool(self._errors)
        )

    def _titles(self, chart: OverlayChart, metric: Metric, axis: str) -> list[str]:
        title = f"{metric.title} {_AXIS_TITLES[axis]}"
        notes = [note for note in (SMOOTHINGS[self._smoothing][1], "log" if chart.log_axis else "") if note]
        short = " · ".join([title, *notes])
        delta = f"Δ: against {self.runs[self._legend.baseline].letter} at the last {axis} both have reached"
        return [f"{short} · {delta}", short, title]

    def _lines(self, name: str, axis: str) -> list[Any]:
        """Return the lines of the runs; that of the selected run comes last and is drawn over the others."""
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

    def _last_step(self, axis: str) -> float | None:
        """Return where a step axis ends: at the last step of the longest run."""
        steps = [run.summary.steps for run in self.runs if not run.hidden]
        return max((s for s in steps if s), default=None) if axis == STEP else None

    def _note(self) -> str:
        if self._errors:
            return next(iter(self._errors.values()))
        if self._unread:
            return f"reading {_runs(self._unread)} …"
        name, axis = _METRICS[self._metric].name, AXES[self._axis]
        read = [run for run in self.runs if run.series]
        if without := [run.letter for run in read if name in run.series and run.last_x(name, axis) is None]:
            return f"{' '.join(without)}: no {_METRICS[self._metric].title} {_AXIS_TITLES[axis].split(' since')[0]}"
        return self._hint

    @on(Legend.CursorMoved)
    def _selected(self) -> None:
        self._paint()

    @on(Legend.Activated)
    def _activated(self) -> None:
        self.action_hide()

    @on(SpecsRead)
    def _show_specs(self, message: SpecsRead) -> None:
        self.query_one(SpecTable).show(message.specs)

    @work(group="specs", exclusive=True, exit_on_error=True)
    async def read_specs(self) -> None:
        specs = await asyncio.to_thread(lambda: [flat_spec(run_dir) for run_dir in self._runs])
        self.post_message(self.SpecsRead(specs))

    # Actions

    def action_back(self) -> None:
        if self.has_class("specs"):
            self.action_differences()
        else:
            self.dismiss()

    def action_open(self) -> None:
        """Open the monitor of the selected run."""
        self.app.open_run(self._runs[self._legend.cursor])

    def action_metric(self, by: int) -> None:
        self._metric = (self._metric + by) % len(_METRICS)
        self._metric_changed.set()
        self._paint()

    def action_x_axis(self) -> None:
        self._axis = (self._axis + 1) % len(AXES)
        self._paint()
        self.call_after_refresh(self._paint)  # by then the other chart has its size

    def action_smooth(self) -> None:
        self._smoothing = (self._smoothing + 1) % len(SMOOTHINGS)
        self._paint()

    def action_log_scale(self) -> None:
        for chart in self._charts:
            chart.log_axis = not chart.log_axis
        self._paint()

    def action_hide(self) -> None:
        """Hide or show the selected run."""
        run = self.runs[self._legend.cursor]
        run.hidden = not run.hidden
        self._paint()

    def action_baseline(self) -> None:
        """Make the selected run the baseline."""
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
