"""Shows one run live: charts, a status line and the log, and sends the user's requests to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Grid
from textual.message import Message

from engine.events.phases import CUT_OFF, DAMAGED, FAILED, NEEDS_ATTENTION, PAUSED
from engine.events.series import Bucket
from engine.events.status import Summary
from engine.events.types import Alert, Checkpoint, CutOff, Edit, Event, Exit, Link, Oom, Start, State
from engine.events.wire import HistoryAnswer
from profiles.errors import UserError
from tui.app.actions.action import key_name
from tui.app.actions.registry import MONITOR
from tui.app.screens import panes
from tui.app.screens.run_requests import RunRequests
from tui.app.state import log_buffer
from tui.app.state.log_buffer import LogLine, LogPage
from tui.app.state.run_view import CHART_SERIES, NUMBER_SERIES, RunView
from tui.app.state.viewport import DetailRequest, Viewport
from tui.app.terminal.refresh_rate import TICK, RefreshRate
from tui.app.widgets.bars import Heading, KeyBar, Notice
from tui.app.widgets.chart import Chart
from tui.app.widgets.cursor_values import CursorValues
from tui.app.widgets.log_view import LogView
from tui.app.widgets.status_line import StatusLine
from tui.text import event_text

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir

_FIRST_LINES = 200  # lines of the log that are read when a run is opened
_FIRST_BYTES = 16 << 20  # bytes of the log read for them at most
_NUMBER_POINTS = 300  # points of a series of which only the last value and the value at the cursor are shown
_DETAIL = [*CHART_SERIES, "lr", "grad_norm", "step_s"]
_DETAIL_POINTS = 1200  # viewport.ENOUGH_POINTS in the visible range, and half of that beyond either end
_SETTLE = 0.1  # seconds without another key before detail is read
_URGENT = (State, Edit, Start, Oom, Checkpoint, Alert, Exit, Link, CutOff)  # drawn at once, not with the next refresh
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

    def __init__(self, run: RunDir) -> None:
        super().__init__()
        self.run = run
        ranks, stop_step, self._oom_wait = _from_spec(run)
        self.view = RunView(run.summary(), ranks, stop_step)
        self.viewport = Viewport(self.view)
        self._title = run.id if self.view.name == run.id else f"{self.view.name} · {run.id}"
        self._dirty = True
        self._numbers = RefreshRate(lambda: self.app.settings.number_every)
        self._charts = RefreshRate(lambda: self.app.settings.chart_every)
        self._connected_before = False
        self._oom_shown: Oom | None = None  # the one for which the tuning dialog was opened

    def compose(self) -> ComposeResult:
        yield Heading(self._title)
        yield CursorValues()
        yield StatusLine()
        yield Notice()
        with Grid(id="panes", classes="unified-memory" if self.view.unified_memory else ""):
            yield from panes.make(self.view)
        yield LogView(self.run.log_path, id="log")
        yield self.search_field()
        yield KeyBar()

    def on_mount(self) -> None:
        self._panes = list(self.query(Chart))
        self._panes[0].focus()
        self.set_interval(TICK, self._tick)
        self.call_after_refresh(self.follow)
        self._paint()

    @work(group="client", exit_on_error=True)
    async def follow(self) -> None:
        """Read the history, then every new record, until the screen closes."""
        client = self._client()
        try:
            answer = await client.history(CHART_SERIES, marks=True)
            self.post_message(self.History(answer))
            self.post_message(self.History(await client.history(NUMBER_SERIES, points=_NUMBER_POINTS)))
            self.post_message(self.FirstEvents(*await asyncio.to_thread(_newest_events, self.run, answer.at)))
            async for at, event in client.events(answer.at):
                self.post_message(self.NewEvent(at, event))
                await asyncio.sleep(0)  # a long backlog must not starve the keys
        except UserError as error:
            self._say(str(error))

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
        self._paint()

    @on(FirstEvents)
    def _show_first_events(self, message: FirstEvents) -> None:
        for at, event in message.events:
            self.view.apply(at, event, update_charts=False)
            self._track_oom(event)
        summary = message.summary
        self.view.update_phase(summary.phase, summary.reason)  # no record says that the run was cut off
        lines = [line for pair in message.events if (line := log_buffer.to_line(*pair)) is not None]
        self._log_view.open(LogPage(lines, message.first, True))
        self._paint()
        self._update_oom_dialog()

    @on(NewEvent)
    def _apply_event(self, message: NewEvent) -> None:
        at, event = message.at, message.event
        self.view.apply(at, event)
        self.viewport.apply(event)
        self._track_oom(event)
        if self._is_news(event) and (line := event_text.describe(event)) is not None:
            self._add_line(*line, t=event.t, offset=at)
        self._dirty = True
        if isinstance(event, _URGENT):
            self._paint()
        self._update_oom_dialog()

    @on(Detail)
    def _load_detail(self, message: Detail) -> None:
        self.viewport.load_detail(message.request, message.series)
        self._paint()

    def _add_line(self, text: str, tone: str, t: float | None = None, offset: int | None = None) -> None:
        """Add a line to the log view; without ``offset`` one that is not in the file, after the newest that is."""
        offset = self._log_view.newest + 1 if offset is None else offset
        self._log_view.add(LogLine(offset, time.time() if t is None or t < 0 else t, text, tone))

    def _track_oom(self, event: Event) -> None:
        """Remember the out-of-memory error about which the run asks the user, until it is answered."""
        match event:
            case Oom():
                self._oom = event if event.action == "ask" else None
            case State(phase="paused"):
                pass
            case State() | Start() | CutOff():
                self._oom = self._oom_shown = None

    def _update_oom_dialog(self) -> None:
        """Open the tuning dialog once for a run that waits for an answer; close it when it was answered elsewhere."""
        from tui.app.screens.tuning import TuningScreen

        top = self.app.screen
        if self._oom is None and isinstance(top, TuningScreen) and top.answers_oom:
            top.dismiss(None)
        elif self.app.read_only:
            return
        elif self.is_active and self._oom is not self._oom_shown and self.view.phase == PAUSED:
            self._oom_shown = self._oom
            self.app.bell()
            self._open_tuning(self._oom)

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

    def on_screen_resume(self) -> None:
        if self._dirty and self.is_mounted:
            self._paint()

    def _tick(self) -> None:
        if self._dirty and self.is_mounted and self._numbers.due():
            charts = self._charts.due()
            self._paint(charts)
            self._dirty = self._dirty or not charts

    def _paint(self, charts: bool = True) -> None:
        """Draw what is known; below a dialog only once it closes, because drawing there repaints the whole screen."""
        self._dirty = not self.is_active
        if self._dirty:
            return
        notes = [
            name for name in (panes.SMOOTHINGS[self._smoothing][1], "log" if self._panes[0].log_axis else "") if name
        ]
        if charts:
            panes.fill(self._panes, self.viewport, "".join(f" · {note}" for note in notes))
            self.show_cursor_values()
            if (request := self.viewport.detail_request()) is not None:
                self.read_detail(request)
        self.query_one(StatusLine).show(self.view)
        self.query_one(KeyBar).hide(self._unusable())
        self._log_view.redraw()
        heading, reason = self.query_one(Heading), self.view.reason or ""
        notice = ("", "")
        if not self.view.connected and self.view.active:
            heading.show(self._title, "connection lost · data kept", warn=True)
        elif self._oom is not None and self.view.phase == PAUSED:
            heading.show(self._oom_text(self._oom), self.view.name, warn=True)
        elif self.view.phase in _BROKEN or not heading.fits(self._title, reason):
            heading.show(self._title, "")
            notice = (f"{self.view.phase}: {reason}" if reason else self.view.phase, self._answers())
        else:
            heading.show(self._title, reason)
        self.query_one(Notice).show(*notice)

    def _unusable(self) -> frozenset[str]:
        """Return the actions that can do nothing while the run is in its phase."""
        resumes, active = self.view.phase in (CUT_OFF, NEEDS_ATTENTION), self.view.active
        usable = {
            action.id: resumes if action.id == "resume" else active for action in self.actions.own if action.changes
        }
        return frozenset(id for id, can in usable.items() if not can)

    def _answers(self) -> str:
        """Return the keys that help with a run that is broken."""
        resumes = {CUT_OFF: "resumes it from its last checkpoint", NEEDS_ATTENTION: "tries again"}
        resume = "continues with the data as it is" if self.data_has_changed else resumes.get(self.view.phase, "")
        answers = {"console": "its output", "resume": resume}
        keys = {action.id: key_name(action.keys[0]) for action in self.app.offered(self.actions)}
        shown = [id for id in ("resume", "console") if id in keys and id not in self._unusable()]
        return " · ".join(f"{keys[id]} {answers[id]}" for id in shown)

    def _oom_text(self, oom: Oom) -> str:
        """Return what happened, the keys that answer it, and when the run continues without an answer."""
        minutes, seconds = divmod(max(round(oom.t + self._oom_wait - time.time()), 0), 60)
        keys = "" if self.app.read_only else " e reduce memory · p retry ·"
        return f"Out of memory ({oom.where}).{keys} automatic in {minutes}:{seconds:02d}"

    def action_checkpoints(self) -> None:
        self.app.open_checkpoints(self.run.id)

    def action_console(self) -> None:
        from tui.app.screens.console import ConsoleScreen

        self.app.push_screen(ConsoleScreen(self.run))


def _from_spec(run: RunDir) -> tuple[int, int, int]:
    """Return the ranks, the step of an early end, and the seconds that an out-of-memory error waits for an answer.

    1, 0 and 0 if the spec cannot be read, which is reported elsewhere.
    """
    try:
        spec = run.live_spec()
    except UserError:
        return 1, 0, 0
    return spec.ranks, spec.train.stop_step, spec.memory.oom_wait


def _newest_events(run: RunDir, at: int) -> tuple[list[tuple[int, Event]], bool, Summary]:
    """Return the arguments of ``FirstEvents`` for the newest events before offset ``at``."""
    from engine.events.reverse_reader import events_before

    events: list[tuple[int, Event]] = []
    begin = at
    for begin, chunk in events_before(run.log_path, at):
        events += chunk
        if len(events) >= _FIRST_LINES or at - begin >= _FIRST_BYTES:
            break
    return events[::-1], begin <= 0, run.summary()
