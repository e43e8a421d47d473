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
from tui.app.screens.navigation import PAN
from tui.app.screens.panes import SMOOTHINGS
from tui.app.state import raster
from tui.app.state import step_range as step_ranges
from tui.app.state.comparison import LETTERS, REQUIRED_SERIES, ComparedRun, RunReader, RunUpdate
from tui.app.state.data_read import data_note
from tui.app.state.spec_diff import compared_spec
from tui.app.state.step_range import StepRange
from tui.app.state.x_axis import AXES, STEP, TIME
from tui.app.widgets.bars import Heading, KeyBar
from tui.app.widgets.chart import Chart
from tui.app.widgets.legend import Legend
from tui.app.widgets.overlay_chart import OverlayChart, labelled_lines, run_style
from tui.app.widgets.spec_table import SpecTable
from tui.text import format as fmt
from tui.text.axis_text import chart_unit
from tui.text.run_text import describe_labels

_EVERY = 2.0  # seconds between two polls of the active runs
_DELAY = 0.1  # seconds until updates are drawn, so that several are drawn together
_POINTS = 2  # points of a line per column of cells: one per column of dots
_MOST_ZOOM = 16  # times as many points of a line while a part of it is visible


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
        self._range: StepRange | None = None  # None: everything
        self._cursor: float | None = None
        self._errors: dict[int, str] = {}
        self._unread = len(self.runs)
        self._metric_changed = asyncio.Event()  # the new metric has not been read yet
        self._stale = False  # draw when the screen is on top again
        self._draw_scheduled = False

    def compose(self) -> ComposeResult:
        yield Heading("compare")
        yield OverlayChart()
        yield SpecTable(self.runs)
        yield Legend(self.runs)
        yield KeyBar()

    def on_mount(self) -> None:
        self._chart = self.query_one(OverlayChart)
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
        chart = self._chart
        chart.axis, chart.x_range, chart.cursor = axis, self._visible(), self._cursor
        unit, scale = chart_unit(metric, max((run.last(metric.name) or 0 for run in self.runs), default=None))
        lines = self._lines(metric.name, axis)
        chart.show(self._titles(metric, axis), lines, x_end=self._last_step(axis), unit=unit, scale=scale)
        self._legend.axis, self._legend.series = axis, (metric.name, metric.title)
        self._legend.format_value = fmt.formatter(metric.format)
        self._legend.redraw()
        self.query_one(Heading).show(
            title=f"compare · {_runs(len(self.runs))}", note=self._note(), warn=bool(self._errors)
        )

    def _titles(self, metric: Metric, axis: str) -> list[str]:
        title = f"{metric.title} {_AXIS_TITLES[axis]}"
        notes = [note for note in (SMOOTHINGS[self._smoothing][1], "log" if self._chart.log_axis else "") if note]
        short = " · ".join([title, *notes])
        if self._cursor is not None:
            x, values = self._x_text(self._cursor), self._values_at_cursor()
            texts = [f"{run.letter} {fmt.formatter(metric.format)(value)}" for run, value in values]
            shown = [" · ".join([f"{metric.title} at {x}", *texts[:count]]) for count in range(len(texts), 0, -1)]
            return [*shown, f"at {x}"]
        delta = f"Δ: against {self.runs[self._legend.baseline].letter} at the last {axis} both have reached"
        return [f"{short} · {delta}", short, title]

    def _lines(self, name: str, axis: str) -> list[Any]:
        """Return the lines of the runs; that of the selected run comes last and is drawn over the others."""
        width = self._chart.size.width or self.size.width
        weight = SMOOTHINGS[self._smoothing][0]
        order = sorted(range(len(self.runs)), key=lambda i: (i == self._legend.cursor, -i))
        lines = []
        for i in order:
            run = self.runs[i]
            if not run.hidden:
                count = width * _POINTS
                if (visible := self._visible()) is not None and (ends := self._ends()) is not None:
                    count = round(count * min((ends[1] - ends[0]) / (visible[1] - visible[0]), _MOST_ZOOM))
                points = run.points(name, axis, count)
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
        selected = self.runs[self._legend.cursor]
        labels = "" if self._legend.shows_labels else describe_labels(selected.summary)
        notes = [data_note([run.data for run in self.runs]), f"{selected.letter}: {labels}" if labels else self._hint]
        return " · ".join(filter(None, notes))

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
        specs = await asyncio.to_thread(lambda: [compared_spec(run_dir) for run_dir in self._runs])
        self.post_message(self.SpecsRead(specs))

    # Actions

    def action_back(self) -> None:
        if self.has_class("specs"):
            self.action_differences()
        elif self._cursor is not None:
            self.action_cursor()
        else:
            self.dismiss()

    def action_open(self) -> None:
        """Open the monitor of the selected run."""
        self.app.open_run(self._runs[self._legend.cursor])

    def action_metric(self, by: int) -> None:
        self._metric = (self._metric + by) % len(_METRICS)
        self._metric_changed.set()
        self._paint()

    # The visible range and the cursor, in the units of the axis

    def _ends(self) -> tuple[float, float] | None:
        """Return the first and the last x that any shown run has measured."""
        name, axis = _METRICS[self._metric].name, AXES[self._axis]
        ranges = [run.x_range(name, axis) for run in self.runs if not run.hidden]
        known = [one for one in ranges if one is not None]
        return (min(first for first, _ in known), max(last for _, last in known)) if known else None

    def _visible(self) -> tuple[float, float] | None:
        ends = self._ends()
        return None if self._range is None or ends is None else self._range.bounds(*ends)

    def _values_at_cursor(self) -> list[tuple[ComparedRun, float | None]]:
        name, axis = _METRICS[self._metric].name, AXES[self._axis]
        assert self._cursor is not None
        return [(run, run.value_at(name, axis, self._cursor)) for run in self.runs if not run.hidden]

    def _x_text(self, x: float) -> str:
        axis = AXES[self._axis]
        return (
            fmt.duration(x) if axis == TIME else f"{axis} {fmt.exact(x)}" if axis == STEP else f"{fmt.count(x)} tokens"
        )

    def action_zoom(self, factor: float, at: float | None = None) -> None:
        if (ends := self._ends()) is not None:
            self._range = step_ranges.zoom(self._range, *ends, factor, self._cursor if at is None else at)
            self._paint()

    def action_all_steps(self) -> None:
        self._range = None
        self._paint()

    def action_pan(self, direction: int) -> None:
        if (ends := self._ends()) is None:
            return
        if self._cursor is None:
            self._range = step_ranges.pan(self._range, *ends, direction * PAN)
        else:
            begin, end = self._visible() or ends
            self._set_cursor(self._cursor + direction * max((end - begin) / (self._chart.dot_columns // 2), 1))
        self._paint()

    def action_cursor(self) -> None:
        """Put the cursor in the middle of what is visible, or remove it."""
        if (ends := self._ends()) is not None:
            begin, end = self._visible() or ends
            self._set_cursor((begin + end) / 2 if self._cursor is None else None)
            self._paint()

    def _set_cursor(self, x: float | None) -> None:
        ends = self._ends()
        if x is None or ends is None:
            self._cursor = None
            return
        self._cursor = float(min(max(round(x), ends[0]), ends[1]))
        self._range = step_ranges.scroll_to(self._range, *ends, self._cursor)

    @on(Chart.ZoomRequested)
    def _zoom_at(self, message: Chart.ZoomRequested) -> None:
        self.action_zoom(message.factor, message.x)

    @on(Chart.PanRequested)
    def _pan_by(self, message: Chart.PanRequested) -> None:
        if (ends := self._ends()) is not None:
            self._range = step_ranges.pan(self._range, *ends, message.fraction)
            self._paint()

    @on(Chart.Clicked)
    def _cursor_to(self, message: Chart.Clicked) -> None:
        self._set_cursor(message.x)
        self._paint()

    def action_copy(self) -> None:
        """Copy two tab-separated lines: the names of the runs and their values at the cursor."""
        if self._cursor is None:
            self.notify("put the cursor on a step first (v)", timeout=3)
            return
        values = [(run.name, value) for run, value in self._values_at_cursor() if value is not None]
        names = [AXES[self._axis], *(name for name, _ in values)]
        numbers = [f"{number:.10g}" for number in (self._cursor, *(value for _, value in values))]
        self.app.copy_to_clipboard("\t".join(names) + "\n" + "\t".join(numbers))
        self.notify(f"copied {_METRICS[self._metric].title} of {_runs(len(values))}", timeout=2)

    def action_x_axis(self) -> None:
        self._axis = (self._axis + 1) % len(AXES)
        self._range = self._cursor = None  # they are in the units of the axis
        self._paint()

    def action_smooth(self) -> None:
        self._smoothing = (self._smoothing + 1) % len(SMOOTHINGS)
        self._paint()

    def action_log_scale(self) -> None:
        self._chart.log_axis = not self._chart.log_axis
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
