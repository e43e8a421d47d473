"""The runs of this machine, living and ended."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from textual import on, work
from textual.app import ComposeResult
from textual.message import Message
from textual.widgets import Input

from engine.events.run_dir import is_on_other_host
from engine.events.summary import CUT_OFF, INACTIVE
from profiles.errors import UserError
from tui.app.actions.registry import HOME
from tui.app.base import AppScreen
from tui.app.state import raster
from tui.app.state.run_list import FILTERS, SORT_ORDERS, filter_and_sort
from tui.app.widgets.bars import Heading, KeyBar, Notice
from tui.app.widgets.run_detail import RunDetail
from tui.app.widgets.run_table import SPARKLINE_MIN_WIDTH, RunTable
from tui.app.widgets.selectable_list import SelectableList
from tui.text.event_text import describe_cut_off

if TYPE_CHECKING:
    from engine.runs.store import RunStore

_SPARK_EVERY = 5.0  # seconds between two looks at the loss of a living run
_SPARK = 12  # cells


class HomeScreen(AppScreen[None], actions=HOME):
    """Looks at the store once a second while it is on top."""

    class Loaded(Message):
        """What the store answered, or why it did not."""

        def __init__(self, runs: list[dict[str, Any]], error: str = "") -> None:
            super().__init__()
            self.runs = runs
            self.error = error

    class Sparked(Message):
        def __init__(self, id: str, spark: str) -> None:
            super().__init__()
            self.id = id
            self.spark = spark

    def __init__(self, store: RunStore) -> None:
        super().__init__()
        self._store = store
        self._runs: list[dict[str, Any]] = []
        self._filter = ""
        self._which = self._sort = 0

    def compose(self) -> ComposeResult:
        yield Heading("mla-tui · runs")
        yield Notice(id="cut-off")
        yield RunTable()
        yield RunDetail()
        yield Input(id="filter", placeholder="letters of a name, profile or phase", compact=True)
        yield KeyBar()

    def on_mount(self) -> None:
        self.query_one(Input).cursor_blink = False  # a blinking cursor is bytes over ssh
        self.query_one(RunTable).focus()
        # The first frame is drawn before anything is read.
        self.call_after_refresh(self.watch_store)

    @work(group="store", exit_on_error=True)
    async def watch_store(self) -> None:
        sparked: dict[str, float] = {}
        while True:
            # Not is_current: that is true of the screen below the top one too, and a repaint down there repaints all.
            if self.is_active:
                try:
                    runs = await asyncio.to_thread(self._store.summaries)
                    self.post_message(self.Loaded(runs))
                    await self._look_at_losses(runs, sparked)
                except UserError as error:
                    self.post_message(self.Loaded([], str(error)))
            await asyncio.sleep(self.app.settings.number_every)

    async def _look_at_losses(self, runs: list[dict[str, Any]], sparked: dict[str, float]) -> None:
        """Sparklines: an ended run is read once, a living one every few seconds; one screenful at most."""
        if self.size.width < SPARKLINE_MIN_WIDTH or self.app.settings.low_bandwidth:
            return
        from engine.runs.client import RunClient

        for run in runs[: self.size.height]:
            id, ended = run["id"], run.get("phase") in INACTIVE
            seen = sparked.get(id)
            if seen is not None and (ended or time.monotonic() - seen < _SPARK_EVERY):
                continue
            sparked[id] = time.monotonic()
            try:
                answer = await RunClient(self._store.find(id)).history(["loss"], points=_SPARK)
            except UserError:
                continue  # removed meanwhile
            means = [bucket[2] for bucket in answer["series"].get("loss", [])]
            self.post_message(self.Sparked(id, raster.sparkline(means, min(len(means), _SPARK))))

    @on(Loaded)
    def _loaded(self, message: Loaded) -> None:
        self._runs = message.runs
        self._show(message.error)

    @on(Sparked)
    def _sparked(self, message: Sparked) -> None:
        table = self.query_one(RunTable)
        table.sparklines[message.id] = message.spark
        table.redraw()

    def _show(self, error: str = "") -> None:
        table, which, sort = self.query_one(RunTable), FILTERS[self._which], SORT_ORDERS[self._sort]
        table.sorted_by, table.empty_lines = sort.column, self._nothing()
        table.show(filter_and_sort(self._runs, self._filter, which, sort))
        self._tell_of_chosen()
        ended = sum(run.get("phase") in INACTIVE for run in self._runs)
        elsewhere = sum(run.get("phase") not in INACTIVE and is_on_other_host(run) for run in self._runs)
        note = f"{len(self._runs) - ended - elsewhere} living, {ended} ended" if self._runs else ""
        note = error or note + (f", {elsewhere} elsewhere" if elsewhere else "")
        if len(table.runs) != len(self._runs) and not error:
            note = f"{len(table.runs)} of {len(self._runs)}: {self._chosen_by()}"
        if self._sort and not error:
            note += f" · {sort.title}"
        if marked := self._marked():
            note += f" · {len(marked)} marked"
        self.query_one(Heading).show(note=note, warn=bool(error))
        said, one = describe_cut_off(self._runs), len(self._cut_off()) == 1
        self.query_one(Notice).show(said and f"{said} · {'r resumes it' if one else 'r resumes the chosen one, R all'}")

    def _chosen_by(self) -> str:
        """How the runs that are shown were chosen among all."""
        parts = [FILTERS[self._which].title] if self._which else []
        return ", ".join(parts + ([f"matching “{self._filter}”"] if self._filter else []))

    def _nothing(self) -> list[str]:
        """What to say where no run is shown."""
        if not self._runs:
            return ["no runs yet", "", "press n to start one, ? for every key"]
        ways = [
            f"press {key}"
            for key, there in (("f for others", self._which), ("/ to change the filter", self._filter))
            if there
        ]
        return [f"no run is shown: {self._chosen_by()}", "", " or ".join(ways)]

    def _tell_of_chosen(self) -> None:
        table = self.query_one(RunTable)
        self.query_one(RunDetail).show(table.selected)

    @on(SelectableList.CursorMoved)
    def _moved(self) -> None:
        self._tell_of_chosen()

    def _cut_off(self) -> list[str]:
        return [run["id"] for run in self._runs if run.get("phase") == CUT_OFF]

    def action_open(self) -> None:
        chosen = self.query_one(RunTable).selected
        if chosen is None:
            return
        try:
            self.app.open_run(self._store.find(chosen["id"]))
        except UserError as error:
            self.notify(str(error), severity="error")

    def action_resume(self) -> None:
        """The chosen run; where only one was cut off, that one."""
        chosen, cut = self.query_one(RunTable).selected, self._cut_off()
        if len(cut) != 1:
            cut = [id for id in cut if chosen is not None and chosen["id"] == id]
        if not cut:
            self.notify("only a run that was cut off is resumed from here")
        self._resume(cut)

    def action_resume_all(self) -> None:
        self._resume(self._cut_off())

    @work(group="resume")
    async def _resume(self, ids: list[str]) -> None:
        from engine.runs.launch import resume_run

        for id in ids:
            try:
                await asyncio.to_thread(resume_run, self._store.find(id))
                self.notify(f"{id} goes on from its last checkpoint")
            except UserError as error:
                self.notify(str(error), severity="error")

    @on(SelectableList.Activated)
    def _picked(self) -> None:
        self.action_open()

    @on(RunTable.MarkClicked)
    def action_mark(self) -> None:
        table = self.query_one(RunTable)
        if table.selected is None:
            return
        id = table.selected["id"]
        if id in table.marked:
            del table.marked[id]
        else:
            table.marked[id] = None
        self._show()

    def _marked(self) -> list[str]:
        """The marked runs that are still there, in the order of their marks."""
        there = {run["id"] for run in self._runs}
        return [id for id in self.query_one(RunTable).marked if id in there]

    def action_unmark_all(self) -> None:
        self.query_one(RunTable).marked.clear()
        self._show()

    def action_compare(self) -> None:
        """The marked runs in the order of their marks; where none is marked, the chosen one."""
        table = self.query_one(RunTable)
        ids = self._marked()
        hint = "" if len(ids) > 1 else "Space on the runs' screen marks others"
        if not ids and table.selected is not None:
            ids = [table.selected["id"]]
        if not ids:
            self.notify("there is no run to compare")
            return
        try:
            self.app.open_compare([self._store.find(id) for id in ids], hint)
        except UserError as error:
            self.notify(str(error), severity="error")

    def action_sort(self) -> None:
        self._sort = (self._sort + 1) % len(SORT_ORDERS)
        self._show()

    def action_state(self) -> None:
        self._which = (self._which + 1) % len(FILTERS)
        self._show()

    def action_new_run(self) -> None:
        self.app.open_new_run()

    def action_checkpoints(self) -> None:
        self.app.open_checkpoints((self.query_one(RunTable).selected or {}).get("id"))

    def action_data(self) -> None:
        self.app.open_data((self.query_one(RunTable).selected or {}).get("id"))

    def action_filter(self) -> None:
        field = self.query_one(Input)
        field.display = True
        field.focus()

    @on(Input.Changed, "#filter")
    def _filtered(self, event: Input.Changed) -> None:
        self._filter = event.value.strip().lower()
        self._show()

    @on(Input.Submitted, "#filter")
    def _filter_done(self) -> None:
        field = self.query_one(Input)
        field.display = bool(field.value)
        self.query_one(RunTable).focus()

    def action_clear_filter(self) -> None:
        field = self.query_one(Input)
        field.value = ""
        field.display = False
        self.query_one(RunTable).focus()
