"""One run, live: four panes, a status line and the log. What it asks of the run goes through the link."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Grid
from textual.message import Message
from textual.screen import Screen

from profiles.errors import UserError
from tui import actions, words
from tui.pace import BASE, Pace
from tui.run_view import SERIES, RunView
from tui.screens import panes
from tui.widgets.bar import Heading, KeyBar
from tui.widgets.chart import Chart
from tui.widgets.log import LogTail
from tui.widgets.status import StatusLine

if TYPE_CHECKING:
    from engine.jobs.client import Link
    from engine.jobs.store import Job
    from tui.app import MlaApp

_TAIL = 64 << 10  # bytes of log told again when a run is opened
_AT_ONCE = ("state", "edit", "start", "oom", "checkpoint", "alert", "exit", "link")


class MonitorScreen(Screen[None]):
    """Workers read the link and post messages; only the handlers here touch widgets."""

    CSS_PATH = "../styles/monitor.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [*actions.bindings(actions.MONITOR)]
    place = actions.MONITOR

    class History(Message):
        def __init__(self, answer: dict[str, Any]) -> None:
            super().__init__()
            self.answer = answer

    class Records(Message):
        """Some records in order; ``past`` ones are already counted in the history."""

        def __init__(self, records: list[dict[str, Any]], past: bool) -> None:
            super().__init__()
            self.records = records
            self.past = past

    class Trouble(Message):
        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job
        self.view = RunView(job.summary())
        self._smoothing = 0
        self._dirty = True
        self._numbers = Pace(lambda: cast("MlaApp", self.app).settings.number_every)
        self._charts = Pace(lambda: cast("MlaApp", self.app).settings.chart_every)
        self._was_up = False
        self._want: dict[str, Any] | None = None  # of memory, about which a person is asked
        self._offered: dict[str, Any] | None = None  # that form has been opened

    def compose(self) -> ComposeResult:
        yield Heading(f"{self.view.name} · {self.job.id}" if self.view.name != self.job.id else self.job.id)
        yield StatusLine()
        with Grid(id="panes", classes="one-memory" if self.view.one_memory else ""):
            yield from panes.make(self.view)
        yield LogTail(id="log")
        yield KeyBar(actions.MONITOR)

    def on_mount(self) -> None:
        self._panes = list(self.query(Chart))
        self._panes[0].focus()
        self.set_interval(BASE, self._tick)
        self.call_after_refresh(self.follow)
        self._paint()

    @work(group="link", exit_on_error=True)
    async def follow(self) -> None:
        """History first, then every record after it, for as long as the screen stands."""
        link = self._link()
        try:
            answer = await link.history(SERIES)
            self.post_message(self.History(answer))
            past = await asyncio.to_thread(_last_records, self.job, answer["at"])
            self.post_message(self.Records(past, past=True))
            async for record in link.records(answer["at"]):
                self.post_message(self.Records([record], past=False))
                await asyncio.sleep(0)  # a long backlog must not starve the keys
        except UserError as error:
            self.post_message(self.Trouble(str(error)))
        finally:
            await link.close()

    def _link(self) -> Link:
        from engine.jobs.client import Link

        return Link(self.job)

    @on(History)
    def _history(self, message: History) -> None:
        self.view.load_history(message.answer)
        self._paint()

    @on(Records)
    def _records(self, message: Records) -> None:
        urgent = False
        for record in message.records:
            self.view.take(record, charts=not message.past)
            self._heed(record)
            urgent = urgent or record["kind"] in _AT_ONCE
            if self._worth_telling(record) and (told := words.tell(record)) is not None:
                self._log.add(float(record.get("t") or 0) or time.time(), *told)
        self._dirty = True
        if urgent:
            self._paint()
        self._offer_room()

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
        elif cast("MlaApp", self.app).read_only:
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
        self._log.add(time.time(), message.text, "bad")
        self._paint()

    @property
    def _log(self) -> LogTail:
        return self.query_one(LogTail)

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
            panes.fill(self._panes, self.view, "".join(f" · {note}" for note in notes))
        self.query_one(StatusLine).show(self.view)
        self._log.redraw()
        reason = self.view.reason or ""
        if not self.view.linked and not self.view.ended:
            self.query_one(Heading).show(note="connection lost · data kept", warn=True)
        else:
            self.query_one(Heading).show(note=reason, warn=self.view.phase in ("failed", "cut-off"))

    # Looking around

    def action_back(self) -> None:
        self.dismiss()

    def action_checkpoints(self) -> None:
        cast("MlaApp", self.app).open_checkpoints(self.job.id)

    def action_pane(self, index: int) -> None:
        self._panes[index].focus()
        self._zoom_to(index if self.has_class("zoomed") else None)

    def action_zoom(self) -> None:
        focused = next((i for i, pane in enumerate(self._panes) if pane.has_focus), 0)
        self._zoom_to(None if self.has_class("zoomed") else focused)

    def _zoom_to(self, index: int | None) -> None:
        self.set_class(index is not None, "zoomed")
        for i, pane in enumerate(self._panes):
            pane.set_class(i == index, "zoomed-pane")

    def action_log_axis(self) -> None:
        self._panes[0].log_axis = not self._panes[0].log_axis
        self._paint()

    def action_smooth(self) -> None:
        self._smoothing = (self._smoothing + 1) % len(panes.SMOOTHINGS)
        for pane in (self._panes[0], self._panes[3]):
            pane.smoothing = panes.SMOOTHINGS[self._smoothing][0]
        self._paint()

    def action_scroll_log(self, by: int) -> None:
        self._log.scroll_by(by)

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
            self.post_message(self.Records([record], past=False))

    def action_pause(self) -> None:
        if self.view.phase == "paused":
            self.ask("resume", "asked to go on")
        else:
            self.ask("pause", "asked to pause")

    def action_checkpoint(self) -> None:
        self.ask("checkpoint", "asked for a checkpoint")

    def action_stop(self) -> None:
        from tui.screens.confirm import ConfirmScreen

        if self.view.ended:
            self._trouble(self.Trouble(f"the run has already ended: {self.view.phase}"))
            return
        answers = [("save", "Save and stop"), ("nosave", "Stop without saving")]
        self.app.push_screen(ConfirmScreen(f"Stop {self.view.name} at step {self.view.step}?", answers), self._stop)

    def _stop(self, answer: str | None) -> None:
        if answer in ("save", "nosave"):
            save = answer == "save"
            self.ask("stop", "asked to save and stop" if save else "asked to stop without saving", save=save)

    def action_edit(self) -> None:
        if self.view.ended:
            self._trouble(self.Trouble(f"the run has already ended: {self.view.phase}"))
            return
        self._open_edit(self._want)

    def _open_edit(self, want: dict[str, Any] | None) -> None:
        from tui.screens.tuning import TuningScreen

        view = self.view
        try:
            spec = self.job.spec()
            now = {"micro": view.micro, "context": view.context}
            now["sequences"] = view.micro * view.accum * spec.ranks if view.micro and view.accum else None
            spec = spec.with_batch(**{key: value for key, value in now.items() if value})
        except UserError as error:
            self._trouble(self.Trouble(str(error)))
            return
        self.app.push_screen(TuningScreen(spec, self._link(), want), self._edited)

    def _edited(self, changes: dict[str, Any] | None) -> None:
        if changes:
            text = "asked for " + ", ".join(f"{key} = {value}" for key, value in changes.items())
            self._log.add(time.time(), text, "plain")
            self._paint()


def _last_records(job: Job, at: int) -> list[dict[str, Any]]:
    """What the log says shortly before offset ``at``: what a newcomer wants to have read."""
    from engine.jobs.log import read_all

    start = max(0, at - _TAIL)  # within a line: what is left of it is no record
    return [record for offset, record in read_all(job.log_path, start) if offset < at]
