"""One run, live: four panes, a status line and the log. What it asks of the run goes through the link."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Grid
from textual.message import Message

from profiles.errors import UserError
from tui.app.actions.registry import MONITOR
from tui.app.screens import panes
from tui.app.screens.navigation import Navigation
from tui.app.state import log_buffer
from tui.app.state.log_buffer import LogLine, LogPage
from tui.app.state.run_view import CHART_SERIES, NUMBER_SERIES, RunView
from tui.app.state.viewport import DetailRequest, Viewport
from tui.app.terminal.refresh_rate import TICK, RefreshRate
from tui.app.widgets.bars import Heading, KeyBar
from tui.app.widgets.chart import Chart
from tui.app.widgets.cursor_values import CursorValues
from tui.app.widgets.log_view import LogView
from tui.app.widgets.status_line import StatusLine
from tui.text import event_text

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir
    from engine.runs.client import RunClient

_TOLD = 200  # lines of the log that are told when a run is opened
_LOOK_BACK = 16 << 20  # bytes of log read for them at most
_READ_POINTS = 300
_DETAIL = [*CHART_SERIES, "lr", "grad_norm", "step_s"]
_DETAIL_POINTS = 1200  # viewport.ENOUGH_POINTS in view, and half of that beyond either side
_SETTLED = 0.1  # seconds without another key before a part of the log is read
_AT_ONCE = ("state", "edit", "start", "oom", "checkpoint", "alert", "exit", "link")


class MonitorScreen(Navigation, actions=MONITOR):
    """Workers read the link and post messages; only the handlers here touch widgets."""

    CSS_PATH = "../styles/monitor.tcss"

    class History(Message):
        """Some of the series so far."""

        def __init__(self, answer: dict[str, Any]) -> None:
            super().__init__()
            self.answer = answer

    class EditHistory(Message):
        """The newest events of the log with their offsets, in order; whether the first of all is among them."""

        def __init__(self, events: list[tuple[int, dict[str, Any]]], first: bool) -> None:
            super().__init__()
            self.events, self.first = events, first

    class Records(Message):
        """What has come since, in order."""

        def __init__(self, records: list[dict[str, Any]]) -> None:
            super().__init__()
            self.records = records

    class Detail(Message):
        """What was request for a closer look; None where it is too long to be read."""

        def __init__(self, request: DetailRequest, series: dict[str, Any] | None) -> None:
            super().__init__()
            self.request, self.series = request, series

    class Trouble(Message):
        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self, run: RunDir) -> None:
        super().__init__()
        self.run = run
        self.view = RunView(run.summary(), _ranks(run))
        self.viewport = Viewport(self.view)
        self._dirty = True
        self._numbers = RefreshRate(lambda: self.app.settings.number_every)
        self._charts = RefreshRate(lambda: self.app.settings.chart_every)
        self._was_up = False
        self._want: dict[str, Any] | None = None  # of memory, about which a person is asked
        self._offered: dict[str, Any] | None = None  # that form has been opened

    def compose(self) -> ComposeResult:
        yield Heading(f"{self.view.name} · {self.run.id}" if self.view.name != self.run.id else self.run.id)
        yield CursorValues()
        yield StatusLine()
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

    @work(group="link", exit_on_error=True)
    async def follow(self) -> None:
        """History first, then every record after it, for as long as the screen stands."""
        link = self._link()
        try:
            answer = await link.history(CHART_SERIES, marks=True)
            self.post_message(self.History(answer))
            self.post_message(self.History(await link.history(NUMBER_SERIES, points=_READ_POINTS)))
            self.post_message(self.EditHistory(*await asyncio.to_thread(_newest, self.run, answer["at"])))
            async for record in link.records(answer["at"]):
                self.post_message(self.Records([record]))
                await asyncio.sleep(0)  # a long backlog must not starve the keys
        except UserError as error:
            self.post_message(self.Trouble(str(error)))

    @work(group="detail", exclusive=True)
    async def look_closer(self, request: DetailRequest) -> None:
        """Read the steps in view again, one by one, where the run is so long that buckets hold many."""
        await asyncio.sleep(_SETTLED)  # another key may already ask for another part
        try:
            answer = await self._link().detail(_DETAIL, _DETAIL_POINTS, *request)
        except UserError:
            return  # what is there stays
        self.post_message(self.Detail(request, None if answer is None else answer["series"]))

    def _link(self) -> RunClient:
        from engine.runs.client import RunClient

        return RunClient(self.run)

    @on(History)
    def _history(self, message: History) -> None:
        self.view.load_history(message.answer)
        self._paint()

    @on(EditHistory)
    def _past(self, message: EditHistory) -> None:
        for _, record in message.events:
            self.view.apply(record, update_charts=False)
            self._heed(record)
        entries = [entry for pair in message.events if (entry := log_buffer.to_line(*pair)) is not None]
        self._log_view.open(LogPage(entries, message.first, True))
        self._paint()
        self._offer_room()

    @on(Records)
    def _records(self, message: Records) -> None:
        urgent = False
        for record in message.records:
            self.view.apply(record)
            self.viewport.apply(record)
            self._heed(record)
            urgent = urgent or record["kind"] in _AT_ONCE
            if self._worth_telling(record) and (told := event_text.describe(record)) is not None:
                self._say(*told, t=record.get("t"), at=record.get("at"))
        self._dirty = True
        if urgent:
            self._paint()
        self._offer_room()

    @on(Detail)
    def _detail(self, message: Detail) -> None:
        self.viewport.load_detail(message.request, message.series)
        self._paint()

    def _say(self, text: str, tone: str, t: float | None = None, at: int | None = None) -> None:
        """A line for the log; one that is not in the file stands behind the newest that is."""
        offset = self._log_view.newest + 1 if at is None else at
        self._log_view.add(LogLine(offset, float(t or time.time()), text, tone))

    def _heed(self, record: dict[str, Any]) -> None:
        """Remember want of memory that a person is asked about, until anybody has answered."""
        if record["kind"] == "oom":
            self._want = record if record.get("action") == "ask" else None
        elif record["kind"] == "start" or (record["kind"] == "state" and record.get("phase") != "paused"):
            self._want = self._offered = None

    def _offer_room(self) -> None:
        """Open the form on a run that is held for want of memory, once; close it when another has answered."""
        top = self.app.screen
        if self._want is None and getattr(top, "held", False):
            top.dismiss(None)
        elif self.app.read_only:
            return
        elif self.is_active and self._want is not self._offered and self.view.phase == "paused":
            self._offered = self._want
            self.app.bell()
            self._open_edit(self._want)

    def _worth_telling(self, record: dict[str, Any]) -> bool:
        """The first connection is no news."""
        if record["kind"] != "link":
            return True
        first, self._was_up = not self._was_up, True
        return not (first and record.get("up"))

    @on(Trouble)
    def _trouble(self, message: Trouble) -> None:
        self._say(message.text, "bad")
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
        """Show what is known. Below a dialog a repaint costs the whole screen, so it waits until the dialog is gone."""
        self._dirty = not self.is_active
        if self._dirty:
            return
        notes = [
            name for name in (panes.SMOOTHINGS[self._smoothing][1], "log" if self._panes[0].log_axis else "") if name
        ]
        if charts:
            panes.fill(self._panes, self.viewport, "".join(f" · {note}" for note in notes))
            self.read_out()
            if (request := self.viewport.detail_request()) is not None:
                self.look_closer(request)
        self.query_one(StatusLine).show(self.view)
        self.query_one(KeyBar).show(active=self.view.active)
        self._log_view.redraw()
        reason = self.view.reason or ""
        if not self.view.connected and self.view.active:
            self.query_one(Heading).show(note="connection lost · data kept", warn=True)
        else:
            self.query_one(Heading).show(note=reason, warn=self.view.phase in ("failed", "cut-off"))

    def action_checkpoints(self) -> None:
        self.app.open_checkpoints(self.run.id)

    # Asking things of the run

    @work(group="ask", exit_on_error=True)
    async def ask(self, method: str, said: str, **params: Any) -> None:
        """Send a request; its outcome comes back as a record."""
        try:
            await self._link().request(method, by="app", **params)
        except UserError as error:
            self.post_message(self.Trouble(str(error)))
        else:
            record = {"t": time.time(), "kind": "log", "level": "info", "text": said}
            self.post_message(self.Records([record]))

    def action_pause(self) -> None:
        if self.view.phase == "paused":
            self.ask("resume", "asked to go on")
        else:
            self.ask("pause", "asked to pause")

    def action_checkpoint(self) -> None:
        self.ask("checkpoint", "asked for a checkpoint")

    def action_stop(self) -> None:
        from tui.app.screens.confirm import ConfirmScreen

        if not self.view.active:
            self._trouble(self.Trouble(f"the run has already ended: {self.view.phase}"))
            return
        answers = [("save", "Save and stop"), ("nosave", "Stop without saving")]
        self.app.push_screen(ConfirmScreen(f"Stop {self.view.name} at step {self.view.step}?", answers), self._stop)

    def _stop(self, answer: str | None) -> None:
        if answer in ("save", "nosave"):
            save = answer == "save"
            self.ask("stop", "asked to save and stop" if save else "asked to stop without saving", save=save)

    def action_tune(self) -> None:
        if not self.view.active:
            self._trouble(self.Trouble(f"the run has already ended: {self.view.phase}"))
            return
        self._open_edit(self._want)

    def _open_edit(self, want: dict[str, Any] | None) -> None:
        from tui.app.screens.tuning import TuningScreen

        try:
            spec = self.run.live_spec()
        except UserError as error:
            self._trouble(self.Trouble(str(error)))
            return
        self.app.push_screen(TuningScreen(spec, self._link(), want), self._edited)

    def _edited(self, changes: dict[str, Any] | None) -> None:
        if changes:
            text = "asked for " + ", ".join(f"{key} = {value}" for key, value in changes.items())
            self._say(text, "plain")
            self._paint()


def _ranks(run: RunDir) -> int:
    """On how many the run is; 1 where its spec cannot be read, which others tell."""
    try:
        return run.spec().ranks
    except UserError:
        return 1


def _newest(run: RunDir, at: int) -> tuple[list[tuple[int, dict[str, Any]]], bool]:
    """The newest events before offset ``at``, with theirs, and whether the first of all is among them."""
    from engine.events.reverse_reader import events_before

    events: list[tuple[int, dict[str, Any]]] = []
    begin = at
    for begin, some in events_before(run.log_path, at):
        events += some
        if len(events) >= _TOLD or at - begin >= _LOOK_BACK:
            break
    return events[::-1], begin <= 0
