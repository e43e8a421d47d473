"""How a person looks at a run: closer and wider, the cursor and what it reads, and the lines of the log."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from textual import on
from textual.widgets import Input

from tui.app.base import AppScreen
from tui.app.screens import panes
from tui.app.widgets.bars import Heading, KeyBar
from tui.app.widgets.canvas import Canvas
from tui.app.widgets.chart import Chart
from tui.app.widgets.cursor_values import CursorValues
from tui.app.widgets.log_view import LogView
from tui.text import event_text
from tui.text import format as fmt

if TYPE_CHECKING:
    from tui.app.state.run_view import RunView
    from tui.app.state.viewport import Viewport

_STEP = 0.25  # of the window, moved by one key
# What is copied, in this order, as far as it was measured
_COPIED = (
    *("loss", "val_loss", "lr", "grad_norm", "tok_s", "step_s", "mfu", "device_peak", "host_states"),
    *("device_used", "rss", "ram_used", "unified_active", "unified_peak"),
)


class Navigation(AppScreen[None]):
    """The part of the monitor that only looks. The monitor has the viewport and paints."""

    viewport: Viewport
    view: RunView
    _panes: list[Chart]
    _smoothing = 0  # index in SMOOTHINGS

    def _paint(self) -> None:
        raise NotImplementedError

    @staticmethod
    def search_field() -> Input:
        field = Input(id="search", placeholder="words of a line", compact=True)
        field.cursor_blink = False  # a blinking cursor is bytes over ssh
        field.display = False
        return field

    @property
    def _log_view(self) -> LogView:
        return self.query_one(LogView)

    # The panes

    def action_focus_pane(self, index: int) -> None:
        if index < len(self._panes):
            self._focus(self._panes[index])

    def action_focus_log(self) -> None:
        self._focus(self._log_view)

    def _focus(self, pane: Canvas) -> None:
        pane.focus()
        self._maximize(pane if self.has_class("zoomed") else None)

    def action_maximize(self) -> None:
        focused = next((pane for pane in (self._log_view, *self._panes) if pane.has_focus), self._panes[0])
        self._maximize(None if self.has_class("zoomed") else focused)

    def _maximize(self, maximized: Canvas | None) -> None:
        self.set_class(maximized is not None, "zoomed")
        self.set_class(maximized is self._log_view, "zoomed-log")
        for pane in self._panes:
            pane.set_class(pane is maximized, "zoomed-pane")

    def action_log_axis(self) -> None:
        self._panes[0].log_axis = not self._panes[0].log_axis
        self._paint()

    def action_smooth(self) -> None:
        self._smoothing = (self._smoothing + 1) % len(panes.SMOOTHINGS)
        for pane in (self._panes[0], self._panes[-1]):
            pane.smoothing = panes.SMOOTHINGS[self._smoothing][0]
        self._paint()

    # The window

    def action_zoom(self, factor: float) -> None:
        self.viewport.zoom(factor)
        self._paint()

    def action_all_steps(self) -> None:
        self.viewport.step_range = None
        self._paint()

    def action_pan(self, way: int) -> None:
        if self.viewport.cursor is None:
            self.viewport.pan(way * _STEP)
        else:
            self.viewport.move_cursor(way, self._panes[0].dot_columns // 2)
        self._paint()

    @on(Chart.ZoomRequested)
    def _wheeled(self, message: Chart.ZoomRequested) -> None:
        self.viewport.zoom(message.factor, self._step(message.chart, message.x))
        self._paint()

    @on(Chart.PanRequested)
    def _dragged(self, message: Chart.PanRequested) -> None:
        self.viewport.pan(message.fraction)
        self._paint()

    @on(Chart.Clicked)
    def _pointed(self, message: Chart.Clicked) -> None:
        self.viewport.set_cursor(self._step(message.chart, message.x))
        self._paint()

    def _step(self, chart: Chart, x: float) -> float | None:
        return self.viewport.step_of(x) if chart.time_axis else x

    # The cursor

    def action_cursor(self) -> None:
        """To the middle of what is in view, or away."""
        extent = self.viewport.measured_steps()
        begin, end = self.viewport.visible_steps() or extent or (0.0, 0.0)
        self.viewport.set_cursor((begin + end) / 2 if self.viewport.cursor is None else None)
        self._paint()

    def action_move_to_event(self, way: int) -> None:
        """To the event before or behind the cursor; without one, to the last or the first."""
        extent = self.viewport.measured_steps()
        if extent is None:
            return
        steps = [mark["step"] for mark in self.view.marks.to_list() if mark["kind"] in panes.MARKS]
        here = self.viewport.cursor
        if way < 0:
            found = max((s for s in steps if here is None or s < here), default=None)
        else:
            found = min((s for s in steps if here is None or s > here), default=None)
        if found is None:
            self.notify("there is no event that way" if steps else "this run has no events yet", timeout=3)
            return
        self.viewport.set_cursor(found)
        self._paint()

    def read_out(self) -> None:
        """Show what there is at the cursor."""
        viewport, shown = self.viewport, self.query_one(CursorValues)
        # In the heading's place: what else is on screen need not move, and be sent anew.
        self.query_one(Heading).display = viewport.cursor is None
        if viewport.cursor is None:
            shown.show((), "")
            return
        then = viewport.time_of(viewport.cursor)
        moment = "" if then is None else time.strftime(" · %d %b %H:%M:%S", time.localtime(then))
        facts = [f"step {fmt.exact(viewport.cursor)}{moment}"]
        for label, name, text in (
            ("lr", "lr", fmt.rate),
            ("grad", "grad_norm", fmt.loss),
            ("loss", "loss", fmt.loss),
            ("val", "val_loss", fmt.loss),
            ("tokens/s", "tok_s", fmt.exact),
            ("s/step", "step_s", fmt.duration),
        ):
            if (value := panes.value_at(viewport, name, text)[0]) != fmt.NOTHING:
                facts.append(f"{label} {value}")
        marks = viewport.marks_at_cursor(self._panes[0].dot_columns // 2)
        happened = [mark for mark in marks if mark["kind"] in panes.MARKS]
        counted = Counter(f"{panes.MARKS[mark['kind']][0]} {event_text.describe_mark(mark)}" for mark in happened)
        told = [text if count == 1 else f"{text} ({count})" for text, count in counted.items()]
        shown.show(tuple(facts), "  ".join(told[:3]) + (f" and {len(told) - 3} more" if len(told) > 3 else ""))

    def action_copy(self) -> None:
        """Two lines, names and values, with tabs between them."""
        viewport = self.viewport
        if viewport.cursor is None:
            self.notify("put the cursor on a step first: v", timeout=3)
            return
        buckets = {name: viewport.bucket_at_cursor(name) for name in _COPIED}
        points = {name: point for name, point in buckets.items() if point is not None and point[2] is not None}
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

    def action_close(self) -> None:
        """What was opened last: the search field, the cursor, the search, the pane; then the screen."""
        if self.query_one("#search", Input).display:
            self._close_search()
        elif self.viewport.cursor is not None:
            self.action_cursor()
        elif self._log_view.search_words:
            self.query_one("#search", Input).value = ""
            self._log_view.search("")
        elif self.has_class("zoomed"):
            self.action_maximize()
        else:
            self.dismiss()


def _plain(value: object) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)
