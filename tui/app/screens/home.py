"""Lists the runs of this machine, active and ended."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input

from engine.events.phases import CUT_OFF, PAUSED, has_ended, is_active
from engine.events.run_dir import is_on_other_host
from engine.events.status import Summary
from profiles.errors import UserError
from tui.app.actions.registry import HOME
from tui.app.screens.run_actions import RunActions
from tui.app.state import raster
from tui.app.state.run_filter import parse_filter
from tui.app.state.run_list import FILTERS, SORT_ORDERS, filter_and_sort
from tui.app.state.run_preview import RunPreview, read_preview
from tui.app.widgets.bars import Heading, KeyBar, Notice
from tui.app.widgets.prompt import Prompt
from tui.app.widgets.run_detail import RunDetail
from tui.app.widgets.run_preview import PreviewPane
from tui.app.widgets.run_table import SPARKLINE_MIN_WIDTH, RunTable
from tui.app.widgets.selectable_list import SelectableList
from tui.text.run_text import describe_cut_off, is_working, phase_name

if TYPE_CHECKING:
    from engine.runs.store import RunStore

_SPARKLINE_EVERY = 5.0  # seconds between two reads of the loss of an active run
_PREVIEW_MIN_WIDTH = 140  # cells of a terminal in which a preview stands beside the list
_SPARKLINE = 12  # cells
_FILTER_HINT = "letters, loss<4, lr>=1e-3, tag:moe, phase:ended, name:sweep"
_FOR_A_RUN = frozenset(("open", "mark", "mark_all", "compare", "checkpoints", "data", "sort"))  # on a listed run


class HomeScreen(RunActions, actions=HOME):
    """Polls the store once a second while it is on top."""

    class Loaded(Message):
        """The summaries of the runs, or why they could not be read."""

        def __init__(self, runs: list[Summary], error: str = "") -> None:
            super().__init__()
            self.runs = runs
            self.error = error

    class SparklineRead(Message):
        def __init__(self, id: str, sparkline: str) -> None:
            super().__init__()
            self.id = id
            self.sparkline = sparkline

    class PreviewRead(Message):
        def __init__(self, preview: RunPreview) -> None:
            super().__init__()
            self.preview = preview

    def __init__(self, store: RunStore) -> None:
        super().__init__()
        self.store = store
        self._runs: list[Summary] = []
        self._filter = ""  # the text of the last one that is right
        self._matches = parse_filter("")
        self._filter_error = ""
        self._preview: RunPreview | None = None
        self._previewed = ("", 0.0)  # the run whose preview was read last, and when
        self._state = self._sort = 0  # indices in FILTERS and SORT_ORDERS

    def compose(self) -> ComposeResult:
        yield Heading("mla-tui · runs")
        yield Notice(id="cut-off")
        with Horizontal():
            yield RunTable()
            yield PreviewPane()
        yield RunDetail()
        yield Prompt(id="prompt")
        yield Input(id="filter", placeholder=_FILTER_HINT, compact=True)
        yield KeyBar()

    def on_mount(self) -> None:
        self.query_one(Input).cursor_blink = False  # a blinking cursor is bytes over ssh
        self.query_one(RunTable).focus()
        # The first frame is drawn before anything is read.
        self.call_after_refresh(self.watch_store)

    @work(group="store", exit_on_error=True)
    async def watch_store(self) -> None:
        read_at: dict[str, float] = {}  # the time of each run's last sparkline
        while True:
            if self.is_current:
                try:
                    runs = await asyncio.to_thread(self.store.summaries)
                    # Below a dialog, where drawing repaints the whole screen, only a new phase is shown.
                    if self.is_active or _phases(runs) != _phases(self._runs):
                        self.post_message(self.Loaded(runs))
                    if self.is_active:
                        await self._read_sparklines(runs, read_at)
                except UserError as error:
                    self.post_message(self.Loaded([], str(error)))
            await asyncio.sleep(self.app.settings.number_every)

    async def _read_sparklines(self, runs: list[Summary], read_at: dict[str, float]) -> None:
        """Read the loss of an ended run once, of an active one every few seconds; of one screenful at most."""
        if self.size.width < SPARKLINE_MIN_WIDTH or self.app.settings.low_bandwidth:
            return
        from engine.runs.client import RunClient

        for run in runs[: self.size.height]:
            id, at_rest = run.id, not is_active(run.phase)
            before = read_at.get(id)
            if before is not None and (at_rest or time.monotonic() - before < _SPARKLINE_EVERY):
                continue
            read_at[id] = time.monotonic()
            try:
                answer = await RunClient(self.store.find(id)).history(["loss"], points=_SPARKLINE)
            except UserError:
                continue  # the run was removed in the meantime
            means = [bucket.mean for bucket in answer.series.get("loss", [])]
            self.post_message(self.SparklineRead(id, raster.sparkline(means, min(len(means), _SPARKLINE))))

    @property
    def _has_preview(self) -> bool:
        return self.size.width >= _PREVIEW_MIN_WIDTH

    def on_resize(self) -> None:
        self._show_detail()

    @work(group="preview", exclusive=True, exit_on_error=True)
    async def _read_preview(self, id: str) -> None:
        """Read the preview of the selected run; moving the cursor on cancels it."""
        self._previewed = id, time.monotonic()
        try:
            self.post_message(self.PreviewRead(await read_preview(self.store.find(id))))
        except UserError:
            return  # the run was removed in the meantime, or the table says what is wrong with it

    @on(PreviewRead)
    def _show_preview(self, message: PreviewRead) -> None:
        self._preview = message.preview
        self.query_one(PreviewPane).show(self.query_one(RunTable).selected, self._preview)

    @on(Loaded)
    def _show_runs(self, message: Loaded) -> None:
        self._runs = message.runs
        self._show(message.error)

    @on(SparklineRead)
    def _show_sparkline(self, message: SparklineRead) -> None:
        table = self.query_one(RunTable)
        table.sparklines[message.id] = message.sparkline
        table.redraw()

    def _show(self, error: str = "") -> None:
        table, state, order = self.query_one(RunTable), FILTERS[self._state], SORT_ORDERS[self._sort]
        table.sorted_by, table.empty_lines = order.column, [] if error else self._empty_lines()
        table.show(filter_and_sort(self._runs, self._matches, state, order))
        self._show_detail()
        active = sum(is_active(run.phase) for run in self._runs)
        ended = sum(has_ended(run.phase) for run in self._runs)
        other_hosts = sum(is_active(run.phase) and is_on_other_host(run) for run in self._runs)
        note = f"{active - other_hosts} active, {ended} ended" if self._runs else ""
        note += f", {other_hosts} on other hosts" if other_hosts else ""
        if len(table.runs) != len(self._runs) and not error:
            note = f"{len(table.runs)} of {len(self._runs)}: {self._filter_names()}"
        if self._sort and not error:
            note += f" · {order.title}"
        if marked := self._marked():
            note += f" · {len(marked)} marked"
        self.query_one(Heading).show(note=note)
        notice, wrong = describe_cut_off(self._runs), error or self._filter_error
        keys = "r resumes it" if len(self._cut_off()) == 1 else "r resumes the selected one, R all"
        self.query_one(Notice).show(wrong or notice, keys if notice and not wrong else "")

    def _unavailable(self) -> frozenset[str]:
        """Return the actions that have no run to act on."""
        targets = self.targets()
        return (frozenset() if self.query_one(RunTable).runs else _FOR_A_RUN) | {
            *(() if any(is_working(run) for run in targets) else ("stop",)),
            *(() if any(is_working(run) and run.phase != PAUSED for run in targets) else ("pause",)),
            *(() if any(run.phase in (PAUSED, CUT_OFF) for run in targets) else ("resume",)),
        }

    def _filter_names(self) -> str:
        """Return the filters that the listed runs match."""
        parts = [FILTERS[self._state].title] if self._state else []
        return ", ".join(parts + ([f"matching “{self._filter}”"] if self._filter else []))

    def _empty_lines(self) -> list[str]:
        """Return the lines to show when no run is listed."""
        if not self._runs:
            return ["no runs yet", "", "press n to start one, ? for every key"]
        keys = ["press f for others"] if self._state else []
        keys += ["press / to change the filter"] if self._filter else []
        return [f"no runs: {self._filter_names()}", "", " or ".join(keys)]

    @on(SelectableList.CursorMoved)
    def _show_detail(self) -> None:
        selected = self.query_one(RunTable).selected
        self.query_one(RunDetail).show(selected)
        pane = self.query_one(PreviewPane)
        pane.display = self._has_preview and selected is not None
        if pane.display:
            pane.show(selected, self._preview)
            id, at = self._previewed
            is_stale = selected is not None and is_active(selected.phase) and time.monotonic() - at > _SPARKLINE_EVERY
            if selected is not None and (selected.id != id or is_stale):
                self._read_preview(selected.id)
        self.query_one(KeyBar).hide(self._unavailable())

    def _cut_off(self) -> list[str]:
        return [run.id for run in self._runs if run.phase == CUT_OFF]

    def action_open(self) -> None:
        selected = self.query_one(RunTable).selected
        if selected is None:
            return
        try:
            self.app.open_run(self.store.find(selected.id))
        except UserError as error:
            self.notify(str(error), severity="error")

    def targets(self) -> list[Summary]:
        """Return the marked runs, or the selected one if none is marked."""
        table = self.query_one(RunTable)
        if marked := self._marked():
            by_id = {run.id: run for run in self._runs}
            return [by_id[id] for id in marked]
        return [table.selected] if table.selected else []

    def action_resume_all(self) -> None:
        self.restart(self._cut_off())

    def action_mark_all(self) -> None:
        table = self.query_one(RunTable)
        table.marked |= dict.fromkeys(run.id for run in table.runs)
        self._show()

    @on(SelectableList.Activated)
    def _activated(self) -> None:
        self.action_open()

    @on(RunTable.MarkClicked)
    def action_mark(self) -> None:
        table = self.query_one(RunTable)
        if table.selected is None:
            return
        id = table.selected.id
        if id in table.marked:
            del table.marked[id]
        else:
            table.marked[id] = None
        self._show()

    def _marked(self) -> list[str]:
        """Return the marked runs that still exist, in the order in which they were marked."""
        existing = {run.id for run in self._runs}
        return [id for id in self.query_one(RunTable).marked if id in existing]

    def action_unmark_all(self) -> None:
        self.query_one(RunTable).marked.clear()
        self._show()

    def action_compare(self) -> None:
        """Compare the marked runs in the order of their marks, or the selected one if none is marked."""
        table = self.query_one(RunTable)
        ids = self._marked()
        hint = "" if len(ids) > 1 else "Space in the list of runs marks others"
        if not ids and table.selected is not None:
            ids = [table.selected.id]
        if not ids:
            self._say_none_listed()
            return
        try:
            self.app.open_compare([self.store.find(id) for id in ids], hint)
        except UserError as error:
            self.notify(str(error), severity="error")

    def action_sort(self) -> None:
        self._sort = (self._sort + 1) % len(SORT_ORDERS)
        self._show()

    def action_state(self) -> None:
        self._state = (self._state + 1) % len(FILTERS)
        self._show()

    def action_new_run(self) -> None:
        self.app.open_new_run()

    def action_propose(self) -> None:
        self.app.open_proposal()

    def action_checkpoints(self) -> None:
        if (id := self._selected_id()) is not None:
            self.app.open_checkpoints(id)
        else:
            self._say_none_listed()

    def action_data(self) -> None:
        self.app.open_data(self._selected_id())

    def _say_none_listed(self) -> None:
        loaded = self.query_one(RunTable).loaded
        self.notify(self._empty_lines()[0] if loaded else "the runs are still read", severity="warning")

    def _selected_id(self) -> str | None:
        selected = self.query_one(RunTable).selected
        return selected.id if selected else None

    def action_filter(self) -> None:
        field = self.query_one(Input)
        field.display = True
        field.focus()

    @on(Input.Changed, "#filter")
    def _apply_filter(self, event: Input.Changed) -> None:
        """Filter as typed; a word that is wrong, or not complete yet, leaves the list as it is and says why."""
        text = event.value.strip()
        try:
            self._matches = parse_filter(text)
        except UserError as error:
            self._filter_error = str(error)
        else:
            self._filter, self._filter_error = text, ""
        self._show()

    @on(Input.Submitted, "#filter")
    def _close_filter(self) -> None:
        field = self.query_one(Input)
        field.display = bool(field.value)
        self.query_one(RunTable).focus()

    def action_clear_filter(self) -> None:
        if self.close_prompt():
            return
        field = self.query_one(Input)
        field.value = ""
        field.display = False
        self.query_one(RunTable).focus()


def _phases(runs: list[Summary]) -> dict[str, str]:
    return {run.id: phase_name(run) for run in runs}
