"""The runs of an overlay, one line each: colour and letter, how far they are, and how they stand to the first."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, NamedTuple

from rich.cells import cell_len

from tui.app.state.comparison import AXES, TIME, TOKENS, ComparedRun, difference
from tui.app.widgets import columns
from tui.app.widgets.canvas import Row
from tui.app.widgets.overlay_chart import COLOURS, run_style
from tui.app.widgets.selectable_list import SelectableList
from tui.text import format as fmt
from tui.text.ellipsis import clip_middle


class Column(NamedTuple):
    """``cells`` below zero align right; shown from a terminal of ``wide`` cells on."""

    title: str
    cells: int
    wide: int
    text: Callable[[ComparedRun], str]


_COLUMNS = (
    Column("phase", 10, 0, lambda run: str(run.summary.get("phase") or "")),
    Column("step", -6, 0, lambda run: fmt.count(run.summary.get("step"))),
    Column("tokens", -6, 100, lambda run: fmt.count(run.last_x("loss", TOKENS))),
    Column("time", -8, 110, lambda run: fmt.duration(run.last_x("loss", TIME))),
    Column("loss", -7, 0, lambda run: fmt.loss(run.summary.get("loss"))),
    Column("best val", -8, 72, lambda run: fmt.loss(run.lowest("val_loss"))),
    Column("tok/s", -6, 80, lambda run: fmt.count(run.summary.get("tok_s"))),
)
_DELTA = 9


class Legend(SelectableList):
    """``first`` is the index of the run that the others are measured against."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *(run_style(index) for index in range(COLOURS)),
        *("legend--name", "legend--good", "legend--bad"),
    }

    def __init__(self, runs: list[ComparedRun]) -> None:
        super().__init__(id="legend")
        self.runs = runs
        self.baseline = 0
        self.axis = AXES[0]
        self.series = ("loss", "loss")  # the series' name, and what it is called
        self.text: Callable[[float | None], str] = fmt.loss

    def count(self) -> int:
        return len(self.runs)

    def _columns(self, width: int) -> list[Column]:
        name, title = self.series
        shown = [column for column in _COLUMNS if width >= column.wide]
        shown.append(Column(f"Δ {title}", -_DELTA, 0, lambda run: self._delta(run, name)))
        room = width - 5 - sum(abs(column.cells) + 1 for column in shown)
        longest = max((cell_len(run.name) for run in self.runs), default=0)
        cells = min(max(room, 8), max(longest, 20))
        return [Column("run", cells, 0, lambda run: clip_middle(run.name, cells)), *shown]

    def _delta(self, run: ComparedRun, name: str) -> str:
        first = self.runs[self.baseline]
        if run is first:
            return "first"
        found = difference(first, run, name, self.axis)
        return fmt.NOTHING if found is None else ("+" if found >= 0 else "−") + self.text(abs(found))

    def header(self, width: int) -> Row:
        row: Row = [("     ", "list--header")]
        for column in self._columns(width):
            row.append((columns.cut(column.title, column.cells) + " ", "list--header"))
        return row

    def row(self, index: int, width: int) -> Row:
        run = self.runs[index]
        line = "┄┄" if run.hidden else "━━"
        row: Row = [(f" {run.letter}{line} ", "list--dim" if run.hidden else run_style(index))]
        for column in self._columns(width):
            text = columns.cut(column.text(run), column.cells)
            row.append((text + " ", "list--dim" if run.hidden else "legend--name" if column.title == "run" else ""))
        return row
