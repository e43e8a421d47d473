"""Lists the runs as a table; the width of the terminal decides which columns it shows."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar, NamedTuple

from rich.cells import cell_len
from textual import events
from textual.message import Message

from engine.events.phases import (
    CUT_OFF,
    DAMAGED,
    FAILED,
    FINISHED,
    NEEDS_ATTENTION,
    PAUSED,
    RUNNING,
    STOPPED,
    is_active,
)
from engine.events.run_dir import is_on_other_host
from engine.events.status import Summary
from engine.runs.store import STAMP_LENGTH
from tui.app.state.outlook import seconds_between
from tui.app.state.run_filter import needs_attention
from tui.app.widgets import columns
from tui.app.widgets.canvas import Row
from tui.app.widgets.selectable_list import SelectableList
from tui.text import format as fmt
from tui.text.ellipsis import clip_middle
from tui.text.run_text import STALLED, phase_name

SPARKLINE_MIN_WIDTH = 96  # cells; narrower terminals show no sparkline of the loss
MARK = "●"
_PHASE_STYLES = {
    RUNNING: "good",
    FINISHED: "done",
    FAILED: "bad",
    CUT_OFF: "bad",
    DAMAGED: "bad",
    STOPPED: "done",
}
_MIN_NAME = 14
_MAX_NAME = 60
_DATE = len("20261123-")
_MARGIN = 3  # cells, for the mark


class Column(NamedTuple):
    """A negative ``width`` aligns right; terminals narrower than ``min_terminal`` cells do not show the column."""

    key: str
    title: str
    width: int
    min_terminal: int


_COLUMNS = (
    Column("profile", "profile", 14, 120),
    Column("phase", "phase", 10, 0),
    Column("step", "step", -13, 0),
    Column("done", "done", -4, 140),
    Column("loss", "loss", -8, 0),
    Column("val_loss", "val", -7, 108),
    Column("tok_s", "tok/s", -6, 0),
    Column("spark", "loss history", 12, SPARKLINE_MIN_WIDTH),
    Column("tags", "tags", 16, 110),
    Column("batch", "batch", -9, 150),
    Column("context", "context", -7, 150),
    Column("backend", "backend", 9, 190),
    Column("attempt", "attempt", -7, 200),
    Column("duration", "time", -6, 130),
    Column("started", "started", -8, 72),
    Column("reason", "reason", 1, 180),  # takes the remaining width
)


class RunTable(SelectableList):
    """``sorted_by`` is the key of the column whose title has the sort sign."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *("runs--name", "runs--good", "runs--busy", "runs--done", "runs--bad", "runs--spark", "runs--mark"),
    }

    class MarkClicked(Message):
        """The mark of the run under the cursor was clicked."""

    def __init__(self) -> None:
        super().__init__(id="runs")
        self.runs: list[Summary] = []
        self.sparklines: dict[str, str] = {}
        self.marked: dict[str, None] = {}  # ids in the order of marking
        self.sorted_by = "started"
        self.loaded = False
        self.empty_lines: list[str] = []  # shown instead of an empty table

    def show(self, runs: list[Summary]) -> None:
        """Replace the runs; the cursor stays on the same run."""
        selected = self.selected
        self.runs, self.loaded = runs, True
        if selected is not None:
            self.cursor = next((i for i, run in enumerate(runs) if run.id == selected.id), self.cursor)
        self.redraw()

    @property
    def selected(self) -> Summary | None:
        return self.runs[self.cursor] if 0 <= self.cursor < len(self.runs) else None

    def count(self) -> int:
        return len(self.runs)

    def _columns(self, width: int) -> list[Column]:
        absent = () if any(run.tags for run in self.runs) else ("tags",)
        shown = [column for column in _COLUMNS if width >= column.min_terminal and column.key not in absent]
        visible = columns.fitting(shown, width - _MARGIN - _MIN_NAME - 1)
        left = width - _MARGIN - sum(abs(column.width) + 1 for column in visible)
        longest = max((cell_len(title(run)) for run in self.runs), default=0)
        name = min(max(left, _MIN_NAME), max(longest, 24), _MAX_NAME)
        if visible and visible[-1].key == "reason":
            visible[-1] = visible[-1]._replace(width=max(left - name, 1))
        return [Column("name", "run", name, 0), *visible]

    def header(self, width: int) -> Row | None:
        if not self.runs:
            return None
        row: Row = [(" " * _MARGIN, "list--header")]
        for column in self._columns(width):
            sign = "▾" if column.key == self.sorted_by else ""
            row.append((columns.fit_text(column.title + sign, column.width) + " ", "list--header"))
        return row

    def row(self, index: int, width: int) -> Row:
        run = self.runs[index]
        row: Row = [(f" {MARK if run.id in self.marked else ' '} ", "runs--mark")]
        for column in self._columns(width):
            text, style = self._field(run, column)
            row.append((columns.fit_text(text, column.width) + " ", style))
        return row

    def _field(self, run: Summary, column: Column) -> tuple[str, str]:
        phase = run.phase or ""
        if column.key == "name":
            return _short_title(run, column.width), "runs--name"
        if column.key == "phase":
            if phase == PAUSED and needs_attention(run):  # until a user answers
                return "paused !", "runs--bad"
            if phase == NEEDS_ATTENTION:
                return "attention!", "runs--bad"
            name = phase_name(run)
            if name == STALLED:
                return name, "runs--bad"
            return name, f"runs--{_PHASE_STYLES.get(phase, 'busy') if name == phase else 'busy'}"
        if column.key == "spark":
            return self.sparklines.get(run.id, ""), "runs--spark"
        if column.key in _FIELDS:
            return _FIELDS[column.key](run), ""
        return _DIM_FIELDS[column.key](run), "list--dim"

    def placeholder(self, width: int, height: int) -> list[Row]:
        lines = self.empty_lines if self.loaded else ["loading runs …"]
        top: list[Row] = [[] for _ in range(max((height - len(lines)) // 2 - 1, 0))]
        return top + [[(line.center(width), "list--dim")] for line in lines]

    def on_click(self, event: events.Click) -> None:
        """A click in the margin marks a run; the list handles other clicks."""
        index = self.top + event.y - (1 if self.runs else 0)
        if event.x < _MARGIN and 0 <= index < self.count():
            event.prevent_default()
            self.move(index)
            self.post_message(self.MarkClicked())


def title(run: Summary) -> str:
    name = run.name or run.id
    return f"{name} on {run.host}" if is_on_other_host(run) else name


def _short_title(run: Summary, cells: int) -> str:
    """Return the title in few cells: a run without a name loses the date of its id first."""
    text = title(run)
    if cell_len(text) > cells and text == run.id and len(text) > STAMP_LENGTH:
        text = text[_DATE:]
    return clip_middle(text, cells)


def _progress(run: Summary) -> float:
    """Return the fraction of steps done; 0 if the number of steps is unknown."""
    return min((run.step or 0) / run.steps, 1.0) if run.steps else 0.0


def _step(run: Summary) -> str:
    step, steps = run.step or 0, fmt.count(run.steps) if run.steps else "?"
    text = f"{fmt.exact(step)}/{steps}"
    return text if len(text) <= 13 else f"{fmt.count(step)}/{steps}"


def _speed(run: Summary) -> str:
    return fmt.count(run.tok_s)


def _duration(run: Summary) -> str:
    """Return the time from start to end, or until now; nothing where the clock was set back between them."""
    started, ended = run.started, run.ended
    if started is None or (ended is None and not is_active(run.phase)):
        return fmt.NOTHING
    seconds = seconds_between(started, ended or time.time())
    return fmt.NOTHING if seconds is None else fmt.short_duration(seconds)


def _batch(run: Summary) -> str:
    return f"{run.micro}×{run.accum}" if run.micro and run.accum else fmt.NOTHING


_Field = Callable[[Summary], str]
_FIELDS: dict[str, _Field] = {
    "step": _step,
    "done": lambda run: f"{_progress(run):.0%}" if run.steps else fmt.NOTHING,
    "loss": lambda run: fmt.loss(run.loss),
    "val_loss": lambda run: fmt.loss(run.val_loss),
    "tok_s": _speed,
}
_DIM_FIELDS: dict[str, _Field] = {
    "profile": lambda run: run.profile or "",
    "tags": lambda run: " ".join(run.tags),
    "batch": _batch,
    "context": lambda run: str(run.context or fmt.NOTHING),
    "backend": lambda run: run.backend or "",
    "attempt": lambda run: str(run.attempt or fmt.NOTHING),
    "duration": _duration,
    "started": lambda run: fmt.timestamp(run.started),
    "reason": lambda run: run.reason or "",
}
