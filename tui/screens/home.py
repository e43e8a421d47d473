"""The runs of this machine, living and ended."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual import on, work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.message import Message
from textual.screen import Screen
from textual.widgets import Input

from engine.jobs.status import CUT_OFF, ENDED
from engine.jobs.store import is_elsewhere
from profiles.errors import UserError
from tui import actions
from tui import format as words
from tui.widgets import raster
from tui.widgets.bar import Heading, KeyBar, Notice
from tui.widgets.canvas import Row, clip
from tui.widgets.picker import Picker
from tui.words import cut_off

if TYPE_CHECKING:
    from engine.jobs.store import Store
    from tui.app import MlaApp

_EVERY = 1.0  # seconds between two looks at the jobs
_SPARK_EVERY = 5.0  # seconds between two looks at the loss of a living run
_SPARK = 12  # cells
_ENDED = (*ENDED, CUT_OFF)
_PHASE_STYLES = {"running": "good", "finished": "done", "failed": "bad", "cut-off": "bad", "stopped": "done"}


class RunsTable(Picker):
    """One line a run; columns give way from the right as the terminal narrows."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "runs--name",
        "runs--good",
        "runs--busy",
        "runs--done",
        "runs--bad",
        "runs--spark",
    }

    def __init__(self) -> None:
        super().__init__(id="runs")
        self.runs: list[dict[str, Any]] = []
        self.sparks: dict[str, str] = {}
        self.loaded = False
        self.filter = ""

    def show(self, runs: list[dict[str, Any]]) -> None:
        """Replace the runs; the cursor stays on the run it was on."""
        chosen = self.chosen
        self.runs, self.loaded = runs, True
        if chosen is not None:
            self.cursor = next((i for i, run in enumerate(runs) if run["id"] == chosen["id"]), self.cursor)
        self.redraw()

    @property
    def chosen(self) -> dict[str, Any] | None:
        return self.runs[self.cursor] if 0 <= self.cursor < len(self.runs) else None

    def count(self) -> int:
        return len(self.runs)

    def _columns(self, width: int) -> list[tuple[str, int, str]]:
        """(key, cells, title); negative cells align right."""
        columns = [("phase", 10, "phase"), ("step", -15, "step"), ("loss", -8, "loss"), ("tok_s", -7, "tok/s")]
        if width >= 120:
            columns[:0] = [("profile", 14, "profile")]
            columns.append(("val_loss", -8, "val"))
        if width >= 96:
            columns.append(("spark", _SPARK + 2, "  loss so far"))
        if width >= 72:
            columns.append(("started", -8, "started"))
        if width < 66:
            columns[1] = ("step", -12, "step")
        name = width - 2 - sum(abs(cells) + 1 for _, cells, _ in columns)
        return [("name", min(max(name, 8), 44), "run"), *columns]

    def head(self, width: int) -> Row | None:
        if not self.runs:
            return None
        return self._line(width, {key: (title, "picker--head") for key, _, title in self._columns(width)})

    def item(self, index: int, width: int) -> Row:
        run = self.runs[index]
        phase = str(run.get("phase") or "")
        steps = words.count(run["steps"]) if run.get("steps") else "?"
        return self._line(
            width,
            {
                "name": (_title(run), "runs--name"),
                "profile": (str(run.get("profile") or ""), "picker--dim"),
                "val_loss": (words.loss(run.get("val_loss")), ""),
                "phase": (phase, f"runs--{_PHASE_STYLES.get(phase, 'busy')}"),
                "step": (f"{words.exact(run.get('step') or 0)}/{steps}", ""),
                "loss": (words.loss(run.get("loss")), ""),
                "tok_s": (words.count(run.get("tok_s")) if phase not in _ENDED else words.NOTHING, ""),
                "spark": ("  " + self.sparks.get(run["id"], ""), "runs--spark"),
                "started": (words.moment(run.get("started")), "picker--dim"),
            },
        )

    def _line(self, width: int, fields: dict[str, tuple[str, str]]) -> Row:
        row: Row = [(" ", "")]
        for key, cells, _ in self._columns(width):
            text, style = fields[key]
            text = clip(text, abs(cells))
            row.append(((text.rjust(-cells) if cells < 0 else text.ljust(cells)) + " ", style))
        return row

    def empty(self, width: int, height: int) -> list[Row]:
        if not self.loaded:
            lines = ["looking for runs …"]
        elif self.filter:
            lines = [f"no run matches “{self.filter}”", "press / to change the filter"]
        else:
            lines = ["no runs yet", "", "press n to start one, ? for every key"]
        top: list[Row] = [[] for _ in range(max((height - len(lines)) // 2 - 1, 0))]
        return top + [[(line.center(width), "picker--dim")] for line in lines]


class HomeScreen(Screen[None]):
    """Looks at the store once a second while it is on top."""

    BINDINGS: ClassVar[list[BindingType]] = [*actions.bindings(actions.HOME)]
    place = actions.HOME

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

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store
        self._runs: list[dict[str, Any]] = []
        self._filter = ""

    def compose(self) -> ComposeResult:
        yield Heading("mla-tui · runs")
        yield Notice(id="cut-off")
        yield RunsTable()
        yield Input(id="filter", placeholder="letters of a name, profile or phase", compact=True)
        yield KeyBar(actions.HOME)

    def on_mount(self) -> None:
        self.query_one(Input).cursor_blink = False  # a blinking cursor is bytes over ssh
        self.query_one(RunsTable).focus()
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
            await asyncio.sleep(_EVERY)

    async def _look_at_losses(self, runs: list[dict[str, Any]], sparked: dict[str, float]) -> None:
        """Sparklines: an ended run is read once, a living one every few seconds; one screenful at most."""
        from engine.jobs.client import Link

        for run in runs[: self.size.height]:
            id, ended = run["id"], run.get("phase") in _ENDED
            seen = sparked.get(id)
            if self.size.width < 96 or (seen is not None and (ended or time.monotonic() - seen < _SPARK_EVERY)):
                continue
            sparked[id] = time.monotonic()
            try:
                answer = await Link(self._store.find(id)).history(["loss"], points=_SPARK)
            except UserError:
                continue  # removed meanwhile
            means = [bucket[2] for bucket in answer["series"].get("loss", [])]
            self.post_message(self.Sparked(id, raster.spark(means, min(len(means), _SPARK))))

    @on(Loaded)
    def _loaded(self, message: Loaded) -> None:
        self._runs = message.runs
        self._show(message.error)

    @on(Sparked)
    def _sparked(self, message: Sparked) -> None:
        table = self.query_one(RunsTable)
        table.sparks[message.id] = message.spark
        table.redraw()

    def _show(self, error: str = "") -> None:
        table = self.query_one(RunsTable)
        table.filter = self._filter
        table.show([run for run in self._runs if _matches(run, self._filter)])
        ended = sum(run.get("phase") in _ENDED for run in self._runs)
        elsewhere = sum(run.get("phase") not in _ENDED and is_elsewhere(run) for run in self._runs)
        note = f"{len(self._runs) - ended - elsewhere} living, {ended} ended" if self._runs else ""
        note = error or note + (f", {elsewhere} elsewhere" if elsewhere else "")
        if self._filter and not error:
            note = f"{len(table.runs)} of {len(self._runs)} match “{self._filter}”"
        self.query_one(Heading).show(note=note, warn=bool(error))
        said, one = cut_off(self._runs), len(self._cut_off()) == 1
        self.query_one(Notice).show(said and f"{said} · {'r resumes it' if one else 'r resumes the chosen one, R all'}")

    def _cut_off(self) -> list[str]:
        return [run["id"] for run in self._runs if run.get("phase") == CUT_OFF]

    def _mla_app(self) -> MlaApp:
        return cast("MlaApp", self.app)

    def action_open(self) -> None:
        chosen = self.query_one(RunsTable).chosen
        if chosen is None:
            return
        try:
            self._mla_app().open_job(self._store.find(chosen["id"]))
        except UserError as error:
            self.notify(str(error), severity="error")

    def action_resume(self) -> None:
        """The chosen run; where only one was cut off, that one."""
        chosen, cut = self.query_one(RunsTable).chosen, self._cut_off()
        if len(cut) != 1:
            cut = [id for id in cut if chosen is not None and chosen["id"] == id]
        if not cut:
            self.notify("only a run that was cut off is resumed from here")
        self._resume(cut)

    def action_resume_all(self) -> None:
        self._resume(self._cut_off())

    @work(group="resume")
    async def _resume(self, ids: list[str]) -> None:
        from engine.jobs.launch import take_over

        for id in ids:
            try:
                await asyncio.to_thread(take_over, self._store.find(id))
                self.notify(f"{id} goes on from its last checkpoint")
            except UserError as error:
                self.notify(str(error), severity="error")

    @on(Picker.Picked)
    def _picked(self) -> None:
        self.action_open()

    def action_new_run(self) -> None:
        self._mla_app().open_new_run()

    def action_checkpoints(self) -> None:
        self._mla_app().open_checkpoints((self.query_one(RunsTable).chosen or {}).get("id"))

    def action_data(self) -> None:
        self._mla_app().open_data((self.query_one(RunsTable).chosen or {}).get("id"))

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
        self.query_one(RunsTable).focus()

    def key_escape(self) -> None:
        """Esc takes the filter away."""
        field = self.query_one(Input)
        field.value = ""
        field.display = False
        self.query_one(RunsTable).focus()


def _title(run: dict[str, Any]) -> str:
    name = str(run.get("name") or run["id"])
    return f"{name} on {run['host']}" if is_elsewhere(run) else name


def _matches(run: dict[str, Any], text: str) -> bool:
    return not text or any(text in str(run.get(key) or "").lower() for key in ("id", "name", "profile", "phase"))
