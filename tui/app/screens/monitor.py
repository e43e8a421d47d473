"""Shows one run live: charts, a status line and the log, and sends the user's requests to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.message import Message

from engine.events.metrics import BY_STEP
from engine.events.phases import CUT_OFF, DAMAGED, FAILED, NEEDS_ATTENTION, PAUSED
from engine.events.series import Bucket
from engine.events.status import Summary
from engine.events.types import Alert, Checkpoint, CutOff, Edit, Event, Exit, Link, Oom, Spec, Start, State, Step
from engine.events.wire import HistoryAnswer
from profiles.errors import UserError
from tui.app.actions.action import key_name
from tui.app.actions.registry import MONITOR
from tui.app.screens import panes, run_reads
from tui.app.screens.pane_grid import PaneGrid
from tui.app.screens.run_reads import first_view, newest_events
from tui.app.screens.run_requests import RunRequests
from tui.app.state import log_buffer, since_left
from tui.app.state.console_end import has_printed
from tui.app.state.log_buffer import LogLine, LogPage
from tui.app.state.outlook import Checkpoints, newest_checkpoint
from tui.app.state.run_view import CHART_SERIES, NUMBER_SERIES
from tui.app.state.viewport import DetailRequest, Viewport
from tui.app.terminal.refresh_rate import TICK, RefreshRate
from tui.app.widgets.bars import KeyBar, Notice
from tui.app.widgets.log_view import LogView
from tui.app.widgets.rank_rows import RankRows
from tui.app.widgets.run_heading import RunHeading
from tui.app.widgets.spec_panel import SpecPanel
from tui.app.widgets.status_line import StatusLine
from tui.text import format as fmt

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir

_NUMBER_POINTS = 300  # points of a series of which only the last value and the value at the cursor are shown
_DETAIL = [*CHART_SERIES, *(name for name in NUMBER_SERIES if name in BY_STEP)]
_DETAIL_POINTS = 1200  # viewport.ENOUGH_POINTS in the visible range, and half of that beyond either end
_DISK_EVERY = 60.0  # seconds
_SETTLE = 0.1  # seconds without another key before detail is read
_URGENT = (State, Edit, Start, Oom, Checkpoint, Alert, Exit, Link, CutOff)  # drawn at once, not with the next refresh
_ALERT_TITLES = {"stall": "stalled", "nan": "not finite", "device_lost": "the device is lost"}
_BROKEN = (FAILED, CUT_OFF, DAMAGED, NEEDS_ATTENTION)  # their reason is shown in full, with the keys that help


class MonitorScreen(RunRequests, actions=MONITOR):
    """Workers read from the client and post messages; only the handlers of messages and keys touch widgets."""

    CSS_PATH = "../styles/monitor.tcss"

    class History(Message):
        """The answer to a history request: some of the series so far."""

        def __init__(self, answer: HistoryAnswer) -> None:
            super().__init__()
            self.answer = answer

    class FirstEvents(Message):
        """The newest events of the log with their offsets, in order; ``first``: the log's first event is among them.

        ``summary`` is that of the run, read after them.
        """

        def __init__(self, events: list[tuple[int, Event]], first: bool, summary: Summary) -> None:
            super().__init__()
            self.events, self.first, self.summary = events, first, summary

    class NewEvent(Message):
        """A new event, with its offset in the log if it is logged."""

        def __init__(self, at: int | None, event: Event) -> None:
            super().__init__()
            self.at, self.event = at, event

    class Detail(Message):
        """The answer to a detail request; None if the range is too long to be read."""

        def __init__(self, request: DetailRequest, series: Mapping[str, Sequence[Bucket]] | None) -> None:
            super().__init__()
            self.request, self.series = request, series

    class DiskSeen(Message):
        """The bytes that are free for checkpoints; None if that is not known."""

        def __init__(self, free: int | None) -> None:
            super().__init__()
            self.free = free

    def __init__(self, run: RunDir) -> None:
        super().__init__()
        self.run = run
        self.view, self._oom_wait = first_view(run)
        self._checkpoints = Checkpoints(run.state().checkpoint_bytes)
        self.viewport = Viewport(self.view)
        self._title = run.id if self.view.name == run.id else f"{self.view.name} · {run.id}"
        self._dirty = True
        self._numbers = RefreshRate(lambda: self.app.settings.number_every)
        self._charts = RefreshRate(lambda: self.app.settings.chart_every)
        self._connected_before = self._opened = False  # opened: its history and newest events were read
        self._drawn_phase = ""
        self._alert: Alert | None = None  # a stall or a step that is not finite, until the next step is done
        self._since_left = ""  # what has happened since the user last looked, until it is closed

    def compose(self) -> ComposeResult:
        yield RunHeading(self._title)
        yield StatusLine()
        yield RankRows()
        yield Notice()
        with Horizontal(id="charts"):
            yield PaneGrid(self.view)
            yield SpecPanel()
        yield LogView(self.run.log_path, id="log")
        yield self.search_field()
        yield KeyBar()

    def on_mount(self) -> None:
        self._grid = self.query_one(PaneGrid)
        self._grid.loss.focus()
        self.set_interval(TICK, self._tick)
        self.call_after_refresh(self.follow)
        self.watch_disk()
        self._paint()

    @work(group="client", exit_on_error=True)
    async def follow(self) -> None:
        """Read the history, then every new record, until the screen closes."""
        client = self._client()
        try:
            answer = await client.history(CHART_SERIES, marks=True)
            self.post_message(self.History(answer))
            self.post_message(self.History(await client.history(NUMBER_SERIES, points=_NUMBER_POINTS)))
            self.post_message(self.FirstEvents(*await asyncio.to_thread(newest_events, self.run, answer.at)))
            async for at, event in client.events(answer.at):
                self.post_message(self.NewEvent(at, event))
                await asyncio.sleep(0)  # a long backlog must not starve the keys
        except UserError as error:
            self._say(str(error))

    @work(group="disk", exit_on_error=True)
    async def watch_disk(self) -> None:
        """Look from time to time how much is free where the checkpoints are written, until the screen closes."""
        while True:
            free = await asyncio.to_thread(run_reads.free_for_checkpoints, self.run)
            self.post_message(self.DiskSeen(free))
            await asyncio.sleep(_DISK_EVERY)

    @on(DiskSeen)
    def _load_disk(self, message: DiskSeen) -> None:
        self._checkpoints, self._dirty = self._checkpoints._replace(free=message.free), True

    @work(group="detail", exclusive=True)
    async def read_detail(self, request: DetailRequest) -> None:
        """Read the visible steps again one by one, if the run is so long that a bucket holds many."""
        await asyncio.sleep(_SETTLE)  # the next key may already request another range
        try:
            answer = await self._client().detail(_DETAIL, _DETAIL_POINTS, *request)
        except UserError:
            return  # the coarse data stays
        self.post_message(self.Detail(request, answer))

    @on(History)
    def _load_history(self, message: History) -> None:
        self.view.load_history(message.answer)
        self._grid.choose(self._chosen_panes())  # the charts have their places when ``FirstEvents`` draws them

    @on(FirstEvents)
    def _show_first_events(self, message: FirstEvents) -> None:
        for at, event in message.events:
            self.view.apply(at, event, update_charts=False)
            self._track_oom(event)
        if self._alert is not None and (self.view.last("t") or 0.0) > self._alert.t:
            self._alert = None  # a step was done since
        summary = message.summary
        self.view.update_phase(summary.phase, summary.reason)  # no record says that the run was cut off
        lines = [line for pair in message.events if (line := log_buffer.to_line(*pair)) is not None]
        self._opened = True
        self._log_view.open(LogPage(lines, message.first, True))
        self._since_left = since_left.describe(self.run, self.view, time.time())
        if self._since_left:
            self._add_line(self._since_left, "good")
        self._paint()
        self._update_oom_dialog()

    @on(NewEvent)
    def _apply_event(self, message: NewEvent) -> None:
        at, event = message.at, message.event
        self.view.apply(at, event)
        self.viewport.apply(event)
        self._track_oom(event)
        place = self._log_view.end if at is None else at
        if self._is_news(event) and (line := log_buffer.to_line(place, event)) is not None:
            self._log_view.add(line._replace(time=time.time()) if line.time < 0 else line)
        self._dirty = True
        if isinstance(event, _URGENT):
            self._paint()
        if isinstance(event, Spec) and self.has_class("spec"):
            self.read_spec()
        self._update_oom_dialog()

    @on(Detail)
    def _load_detail(self, message: Detail) -> None:
        self.viewport.load_detail(message.request, message.series)
        self._paint()

    def _add_line(self, text: str, tone: str) -> None:
        """Add a line that is not in the file to the log view."""
        self._log_view.add(LogLine(self._log_view.end, time.time(), text, tone))

    def _track_oom(self, event: Event) -> None:
        """Remember the out-of-memory error about which the run asks the user, until it is answered."""
        match event:
            case Checkpoint(ok=True) if event.bytes:
                self._checkpoints = self._checkpoints._replace(bytes=event.bytes)
            case Alert(what=what) if what in _ALERT_TITLES:
                self._alert = event
            case Step() | Start() | CutOff() | Alert(what="stall-over"):
                self._alert = None
        match event:
            case Oom():
                self._oom = event if event.action == "ask" else None
            case State(phase="paused"):
                pass
            case State() | Start() | CutOff():
                self._oom = self._oom_shown = None

    def _is_news(self, event: Event) -> bool:
        """Return whether an event gets a line; the first connection does not."""
        if not isinstance(event, Link):
            return True
        first, self._connected_before = not self._connected_before, True
        return not (first and event.up)

    @on(RunRequests.Line)
    def _show_line(self, message: RunRequests.Line) -> None:
        self._add_line(message.text, message.tone)
        self._paint()

    def on_unmount(self) -> None:
        if self._opened and not self.app.read_only:
            since_left.remember(self.run, self.view, time.time())

    def on_resize(self) -> None:
        self.call_after_refresh(self._paint_in_new_size)

    def _paint_in_new_size(self) -> None:
        """Draw, also below a dialog: there may be more panes now, of which nothing was drawn."""
        self._drawn_phase = ""
        self._paint()

    def on_screen_resume(self) -> None:
        if self._dirty and self.is_mounted:
            self._paint()

    async def _tick(self) -> None:
        if not (self._dirty and self.is_active and self._numbers.due()):
            return
        self._dirty = not (charts := self._charts.due())
        for _ in self._draw_charts() if charts else ():
            await asyncio.sleep(0)  # a key waits for one chart, not for all
        self._dirty = self._dirty or not self.is_active
        if self.is_active:  # no dialog has opened meanwhile
            self._draw_text()

    def _paint(self) -> None:
        """Draw what is known; below a dialog, where that repaints the screen, until it closes only a new phase."""
        self._dirty = not (self.is_active or (self.is_current and self.view.phase != self._drawn_phase))
        if not self._dirty:
            list(self._draw_charts())  # all at once
            self._draw_text()

    def _draw_charts(self) -> Iterator[None]:
        self._grid.choose(self._chosen_panes())
        for pane in self._grid.on_page:
            pane.update(self.viewport)
            yield
        self.show_cursor_values()
        if (request := self.viewport.detail_request()) is not None:
            self.read_detail(request)

    def _draw_text(self) -> None:
        self.query_one(StatusLine).show(self.view, self._checkpoints)
        self.query_one(RankRows).show(self.view.rank_stats)
        self.query_one(KeyBar).hide(self._unusable())
        self._log_view.redraw()
        self._drawn_phase = self.view.phase
        heading, reason, notice = self.query_one(RunHeading), self.view.reason or "", ("", "")
        if not self.view.connected and self.view.active:
            heading.show(self._title, "connection lost · data kept", warn=True)
        elif self._oom is not None and self.view.phase == PAUSED:
            heading.show(self._title, "")
            notice = (f"Out of memory ({self._oom.where})", self._oom_answers(self._oom))
        elif self._alert is not None and self.view.active and self.view.phase not in _BROKEN:
            heading.show(self._title, reason)
            notice = (f"{_ALERT_TITLES[self._alert.what or '']}: {self._alert.text}", self._answers())
        elif self.view.phase in _BROKEN or not heading.fits(self._title, reason):
            heading.show(self._title, "")
            notice = (f"{self.view.phase}: {reason}" if reason else self.view.phase, self._answers())
        else:
            heading.show(self._title, reason or self._page_note())
            notice = (self._since_left, f"{self._key('close')} closes")
        self.query_one(Notice).show(*notice)

    def _chosen_panes(self) -> list[str]:
        """Return the metrics with panes of their own: those the user has chosen, else the usual ones."""
        chosen = self.app.settings.panes
        return panes.usual_panes(self.view) if chosen is None else list(chosen)

    def _page_note(self) -> str:
        """Return which page of panes is shown, if there are several, and the key that turns them."""
        pages = self._grid.pages
        if pages == 1 or self._grid.maximized is not None:
            return ""
        return f"page {self._grid.page + 1} of {pages} · {self._key('more_panes')} turns"

    def _unusable(self) -> frozenset[str]:
        """Return the actions that can do nothing while the run is in its phase."""
        phase, active = self.view.phase, self.view.active
        trains = active and phase != NEEDS_ATTENTION
        usable = {action.id: trains for action in self.actions.own if action.changes}
        resumes = phase in (PAUSED, CUT_OFF, NEEDS_ATTENTION)
        usable |= {"pause": trains and phase != PAUSED, "resume": resumes, "stop": active}
        usable |= dict.fromkeys(("more_panes", "previous_panes"), self._grid.pages > 1)
        return frozenset(id for id, can in usable.items() if not can)

    def _answers(self) -> str:
        """Return the keys that help with a run that is broken."""
        at = self.view.restarts_at
        start = "its first step" if at is None else f"its checkpoint at step {fmt.exact(at)}"
        resumes = {CUT_OFF: f"resumes it from {start}", NEEDS_ATTENTION: "tries again"}
        resume = "continues with the data as it is" if self.data_has_changed else resumes.get(self.view.phase, "")
        answers = {"console": "its output", "resume": resume, "stop": "stops it", "checkpoints": "resume a checkpoint"}
        keys = {action.id: key_name(action.keys[0]) for action in self.app.offered(self.actions)}
        stuck = self._alert is not None and self.view.phase not in _BROKEN
        wanted = ["console", "stop"] if stuck else ["resume", "console"]
        wanted += ["checkpoints"] if self.view.phase == FAILED and newest_checkpoint(self.view.marks.to_list()) else []
        useless = self._unusable() | (frozenset() if has_printed(self.run.console_path) else {"console"})
        shown = [id for id in wanted if id in keys and id not in useless]
        return " · ".join(f"{keys[id]} {answers[id]}" for id in shown)

    def _oom_answers(self, oom: Oom) -> str:
        """Return the keys that answer an out-of-memory error, and when the run continues without an answer."""
        keys = [] if self.app.read_only else [f"{self._key('tune')} reduce memory", f"{self._key('resume')} retry"]
        return " · ".join([*keys, self.continues_at(oom)])

    def _key(self, id: str) -> str:
        """Return the key of an action, as the user has set it."""
        return next(key_name(one.keys[0]) for one in self.app.offered(self.actions) if one.id == id)

    def action_close(self) -> None:
        """Close what was opened last; before it goes back, what it says about the user's absence."""
        if self._since_left and not self.has_open:
            self._since_left = ""
            self._paint()
        else:
            super().action_close()

    def action_checkpoints(self) -> None:
        self.app.open_checkpoints(self.run.id)

    def action_open_line(self) -> None:
        """Show a line of the log whole, or what the trainer of a broken run has printed."""
        from tui.app.screens.log_line import LogLineScreen

        if self.view.phase in _BROKEN and not self._log_view.has_focus:
            self.action_console()
        elif (line := self._log_view.selected) is not None:
            self.app.push_screen(LogLineScreen(line))

    def action_samples(self) -> None:
        from tui.app.screens.samples import SamplesScreen

        self.app.push_screen(SamplesScreen(self.run))

    def action_console(self) -> None:
        from tui.app.screens.console import ConsoleScreen

        self.app.push_screen(ConsoleScreen(self.run))
