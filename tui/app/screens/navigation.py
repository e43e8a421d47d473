"""Navigates the charts and the log of the monitor: zoom, pan, cursor, events, scrolling and search."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from textual import on, work
from textual.message import Message
from textual.widgets import Input

from engine.events.metrics import METRICS
from profiles.errors import UserError
from tui.app import settings
from tui.app.base import AppScreen
from tui.app.screens import panes
from tui.app.screens.pane_grid import PaneGrid
from tui.app.screens.panes import Pane
from tui.app.state.spec_diff import flat_spec
from tui.app.state.x_axis import AXES
from tui.app.widgets.bars import KeyBar
from tui.app.widgets.canvas import Canvas
from tui.app.widgets.chart import Chart
from tui.app.widgets.log_view import LogView
from tui.app.widgets.run_heading import RunHeading
from tui.app.widgets.spec_panel import SpecPanel
from tui.text import event_text
from tui.text import format as fmt

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir
    from tui.app.state.run_view import RunView
    from tui.app.state.viewport import Viewport

PAN = 0.25  # fraction of the visible steps by which one key pans


class Navigation(AppScreen[None]):
    """The part of the monitor that changes only what is visible. ``MonitorScreen`` has the viewport and draws."""

    run: RunDir
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (120, "-wide")]  # noqa: RUF012, as Textual declares it

    class SpecRead(Message):
        def __init__(self, spec: dict[str, Any]) -> None:
            super().__init__()
            self.spec = spec

    viewport: Viewport
    view: RunView
    _grid: PaneGrid
    _smoothing = 0  # index in SMOOTHINGS

    def _paint(self) -> None:
        raise NotImplementedError

    @staticmethod
    def search_field() -> Input:
        field = Input(id="search", placeholder="words to search for", compact=True)
        field.cursor_blink = False  # a blinking cursor is bytes over ssh
        field.display = False
        return field

    @property
    def _log_view(self) -> LogView:
        return self.query_one(LogView)

    # The panes

    def action_focus_pane(self, index: int) -> None:
        if index < len(self._grid.panes):
            self._focus(self._grid.panes[index])

    def action_focus_log(self) -> None:
        self._focus(self._log_view)

    def _focus(self, pane: Canvas) -> None:
        shown = self._grid.on_page
        self._leave_spec_page()
        if self._is_maximized:
            self._maximize(pane)
        elif isinstance(pane, Pane):
            self._grid.bring(pane)
        pane.focus()
        if self._grid.on_page != shown:  # else the charts stay as they are
            self._paint()

    @property
    def _is_maximized(self) -> bool:
        return self._grid.maximized is not None or self.has_class("maximized-log")

    @property
    def _focused_pane(self) -> Pane:
        return next((pane for pane in self._grid.panes if pane.has_focus), self._grid.loss)

    def action_maximize(self) -> None:
        self._leave_spec_page()
        focused = self._log_view if self._log_view.has_focus else self._focused_pane
        self._maximize(None if self._is_maximized else focused)
        self._paint()

    def _maximize(self, maximized: Canvas | None) -> None:
        self.set_class(maximized is self._log_view, "maximized-log")
        self._grid.maximized = maximized if isinstance(maximized, Pane) else None
        self._grid.lay_out()

    def action_more_panes(self, by: int) -> None:
        self._grid.turn(by)
        self._paint()

    def action_choose_panes(self) -> None:
        from tui.app.screens.pane_picker import PanePicker

        self.app.push_screen(PanePicker(self._grid.names, self.view), self._panes_chosen)

    def _panes_chosen(self, names: list[str] | None) -> None:
        if names is None:
            return
        self.app.settings = replace(self.app.settings, panes=tuple(names))
        try:
            settings.store("panes", " ".join(names))
        except UserError as error:
            self.notify(str(error), severity="error")
        self._paint()

    def action_x_axis(self) -> None:
        self.viewport.chosen_axis = AXES[(AXES.index(self.viewport.chosen_axis) + 1) % len(AXES)]
        self._paint()

    def action_log_scale(self) -> None:
        self._focused_pane.log_axis = not self._focused_pane.log_axis
        self._paint()

    def action_smooth(self) -> None:
        self._smoothing = (self._smoothing + 1) % len(panes.SMOOTHINGS)
        for pane in self._grid.panes:
            if pane.smooths:
                pane.smoothing = panes.SMOOTHINGS[self._smoothing][0]
        self._paint()

    # The spec

    def action_spec(self) -> None:
        """Show the spec beside the charts, in a narrow terminal in their place; or hide it."""
        self.toggle_class("spec")
        if self.has_class("spec"):
            self._maximize(None)
            self.query_one(SpecPanel).focus()
            self.read_spec()
        else:
            self._grid.loss.focus()
        self.call_after_refresh(self._paint)

    @property
    def _is_spec_page(self) -> bool:
        """Whether the spec is shown in place of charts and log."""
        return self.has_class("spec") and self.has_class("-narrow")

    def _leave_spec_page(self) -> None:
        self.set_class(self.has_class("spec") and not self._is_spec_page, "spec")

    @work(group="spec", exclusive=True, exit_on_error=True)
    async def read_spec(self) -> None:
        self.post_message(self.SpecRead(await asyncio.to_thread(flat_spec, self.run)))

    @on(SpecRead)
    def _show_spec(self, message: SpecRead) -> None:
        self.query_one(SpecPanel).show(message.spec)

    # The visible steps

    def action_zoom(self, factor: float) -> None:
        self.viewport.zoom(factor)
        self._paint()

    def action_all_steps(self) -> None:
        self.viewport.step_range = None
        self._paint()

    def action_pan(self, direction: int) -> None:
        if self.viewport.cursor is None:
            self.viewport.pan(direction * PAN)
        else:
            self.viewport.move_cursor(direction, self._grid.dot_columns // 2)
        self._paint()

    @on(Chart.ZoomRequested)
    def _zoom_at(self, message: Chart.ZoomRequested) -> None:
        self.viewport.zoom(message.factor, self.viewport.step_at(message.x))
        self._paint()

    @on(Chart.PanRequested)
    def _pan_by(self, message: Chart.PanRequested) -> None:
        self.viewport.pan(message.fraction)
        self._paint()

    @on(Chart.Clicked)
    def _cursor_to(self, message: Chart.Clicked) -> None:
        self.viewport.set_cursor(self.viewport.step_at(message.x))
        self._paint()

    # The cursor

    def action_cursor(self) -> None:
        """Put the cursor in the middle of the visible steps, or remove it."""
        begin, end = self.viewport.visible_steps() or self.viewport.measured_steps() or (0.0, 0.0)
        self.viewport.set_cursor((begin + end) / 2 if self.viewport.cursor is None else None)
        self._paint()

    def action_move_to_event(self, direction: int) -> None:
        """Move the cursor to the event before or after it; without a cursor, to the last or the first event."""
        if self.viewport.measured_steps() is None:
            return
        steps = [mark.step for mark in self.view.marks.to_list() if mark.kind in panes.MARKS]
        cursor = self.viewport.cursor
        if direction < 0:
            found = max((s for s in steps if cursor is None or s < cursor), default=None)
        else:
            found = min((s for s in steps if cursor is None or s > cursor), default=None)
        if found is None:
            where = "before" if direction < 0 else "after"
            self.notify(f"there is no event {where} the cursor" if steps else "this run has no events yet", timeout=3)
            return
        self.viewport.set_cursor(found)
        self._paint()

    def show_cursor_values(self) -> None:
        """Show the values and events at the cursor."""
        viewport, heading = self.viewport, self.query_one(RunHeading)
        if viewport.cursor is None:
            heading.show_values((), "")
            return
        t = viewport.time_of(viewport.cursor)
        date = "" if t is None else time.strftime(" · %d %b %H:%M:%S", time.localtime(t))
        values = [f"step {fmt.exact(viewport.cursor)}{date}"]
        for name, metric in METRICS.items():
            if not metric.readout:
                continue
            (value, *_), step = panes.value_at(viewport, name, fmt.formatter(metric.format))
            if value != fmt.NOTHING:
                values.append(f"{metric.title} {value}" + (f" @{fmt.exact(step)}" if step != viewport.cursor else ""))
        marks = viewport.marks_at_cursor(self._grid.dot_columns // 2)
        marks = [mark for mark in marks if mark.kind in panes.MARKS]
        counts = Counter(f"{panes.MARKS[mark.kind][0]} {event_text.describe_mark(mark)}" for mark in marks)
        events = [text if count == 1 else f"{text} ({count})" for text, count in counts.items()]
        heading.show_values(
            tuple(values), "  ".join(events[:3]) + (f" and {len(events) - 3} more" if len(events) > 3 else "")
        )

    def action_copy(self) -> None:
        """Copy two tab-separated lines: the names and the values of the series at the cursor."""
        viewport = self.viewport
        if viewport.cursor is None:
            self.notify("put the cursor on a step first (v)", timeout=3)
            return
        buckets = {name: viewport.bucket_at_cursor(name) for name, metric in METRICS.items() if metric.copied}
        points = {
            name: point
            for name, point in buckets.items()
            if point is not None and point[2] is not None and viewport.step_of(name, point) == viewport.cursor
        }
        fields: dict[str, object] = {"step": viewport.cursor, "t": viewport.time_of(viewport.cursor)}
        for name, (_, low, mean, high) in points.items():
            fields[name] = mean
            if low != high:
                fields |= {f"{name}_min": low, f"{name}_max": high}
        known = {name: value for name, value in fields.items() if value is not None}
        self.app.copy_to_clipboard("\t".join(known) + "\n" + "\t".join(map(_plain, known.values())))
        self.notify(f"copied step {fmt.exact(viewport.cursor)}: {len(known)} values", timeout=2)

    # The log

    def action_scroll_log(self, by: int) -> None:
        self._log_view.scroll_lines(by)

    def action_page_log(self, by: int) -> None:
        self._log_view.scroll_pages(by)

    def action_log_oldest(self) -> None:
        self._log_view.show_oldest()

    def action_log_newest(self) -> None:
        self._log_view.show_newest()

    def action_search(self) -> None:
        field = self.query_one("#search", Input)
        self.query_one(KeyBar).display, field.display = False, True
        field.focus()

    @on(Input.Submitted, "#search")
    def _search(self, event: Input.Submitted) -> None:
        self._close_search()
        self._log_view.search(event.value)

    def _close_search(self) -> None:
        self.query_one("#search", Input).display, self.query_one(KeyBar).display = False, True
        self._log_view.focus()

    def action_find(self, step: int) -> None:
        if self._log_view.search_words:
            self._log_view.find(step)
        else:
            self.action_search()

    def action_only_matches(self) -> None:
        if self._log_view.search_words:
            self._log_view.toggle_filter()
        else:
            self.action_search()

    @property
    def has_open(self) -> bool:
        """Whether ``action_close`` has something to close on this screen."""
        search = self.query_one("#search", Input).display or bool(self._log_view.search_words)
        return search or self.viewport.cursor is not None or self._is_maximized or self.has_class("spec")

    def action_close(self) -> None:
        """Close what is open: the search field, cursor, search, maximized pane, spec, or else the screen."""
        if self.query_one("#search", Input).display:
            self._close_search()
        elif self.viewport.cursor is not None:
            self.action_cursor()
        elif self._log_view.search_words:
            self.query_one("#search", Input).value = ""
            self._log_view.search("")
        elif self._is_maximized:
            self.action_maximize()
        elif self.has_class("spec"):
            self.action_spec()
        else:
            self.dismiss()

    def action_back(self) -> None:
        """Go back to the runs; from the spec in place of the charts, to these."""
        if self._is_spec_page:
            self.action_spec()
        else:
            self.dismiss()


def _plain(value: object) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)
