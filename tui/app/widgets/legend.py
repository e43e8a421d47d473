"""Lists the compared runs: colour and letter, progress, and the difference to the baseline."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, NamedTuple

from rich.cells import cell_len

from tui.app.state.comparison import ComparedRun, difference
from tui.app.state.x_axis import AXES, TIME
from tui.app.widgets import columns
from tui.app.widgets.canvas import Row
from tui.app.widgets.overlay_chart import COLOURS, run_style
from tui.app.widgets.selectable_list import SelectableList
from tui.text import format as fmt
from tui.text.ellipsis import clip, clip_middle
from tui.text.run_text import describe_labels, phase_name


class Column(NamedTuple):
    """A negative ``width`` aligns right; terminals narrower than ``min_terminal`` cells do not show the column."""

    title: str
    width: int
    min_terminal: int
    text: Callable[[ComparedRun], str]


_COLUMNS = (
    Column("phase", 10, 0, lambda run: phase_name(run.summary)),
    Column("step", -6, 0, lambda run: fmt.count(run.summary.step)),
    Column("tokens", -6, 100, lambda run: fmt.count(run.tokens)),
    Column("time", -8, 110, lambda run: _time(run)),
    Column("loss", -7, 0, lambda run: fmt.loss(run.summary.loss)),
    Column("best val", -8, 72, lambda run: fmt.loss(run.lowest("val_loss"))),
    Column("tok/s", -6, 80, lambda run: fmt.count(run.mean("tok_s"))),
)
_DELTA_WIDTH = 9
_MARK = 5  # cells, for letter and line
_LEAST_LABELS = 16  # cells left for tags and note, below which those of the selected run are in the heading


def _time(run: ComparedRun) -> str:
    seconds = run.last_x("loss", TIME)
    return fmt.NOTHING if seconds is None else fmt.short_duration(seconds)


class Legend(SelectableList):
    """``baseline`` is the index of the run that the others are compared with."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *(run_style(index) for index in range(COLOURS)),
        "legend--name",
    }

    def __init__(self, runs: list[ComparedRun]) -> None:
        super().__init__(id="legend")
        self.runs = runs
        self.baseline = 0
        self.axis = AXES[0]
        self.series = ("loss", "loss")  # name and title
        self.format_value: Callable[[float | None], str] = fmt.loss

    def count(self) -> int:
        return len(self.runs)

    def _columns(self, width: int) -> list[Column]:
        name, title = self.series
        visible = [column for column in _COLUMNS if width >= column.min_terminal]
        visible.append(Column(f"Δ {title}", -_DELTA_WIDTH, 0, lambda run: self._delta(run, name)))
        left = width - _MARK - sum(abs(column.width) + 1 for column in visible)
        longest = max((cell_len(run.name) for run in self.runs), default=0)
        cells = min(max(left, 8), max(longest, 20))
        if (left := left - cells - 1) >= _LEAST_LABELS and any(describe_labels(run.summary) for run in self.runs):
            visible.append(Column("labels", left, 0, lambda run: clip(describe_labels(run.summary), left)))
        named = [Column("run", cells, 0, lambda run: clip_middle(run.name, cells)), *visible]
        return columns.fitting(named, width - _MARK)

    @property
    def shows_labels(self) -> bool:
        """Whether tags and notes have a column."""
        return any(column.title == "labels" for column in self._columns(self.size.width))

    def _delta(self, run: ComparedRun, name: str) -> str:
        baseline = self.runs[self.baseline]
        if run is baseline:
            return "baseline"
        delta = difference(baseline, run, name, self.axis)
        return fmt.NOTHING if delta is None else ("+" if delta >= 0 else "−") + self.format_value(abs(delta))

    def header(self, width: int) -> Row:
        row: Row = [("     ", "list--header")]
        for column in self._columns(width):
            row.append((columns.fit_text(column.title, column.width) + " ", "list--header"))
        return row

    def row(self, index: int, width: int) -> Row:
        run = self.runs[index]
        line = "┄┄" if run.hidden else "━━"
        row: Row = [(f" {run.letter}{line} ", "list--dim" if run.hidden else run_style(index))]
        for column in self._columns(width):
            text = columns.fit_text(column.text(run), column.width)
            row.append((text + " ", "list--dim" if run.hidden else "legend--name" if column.title == "run" else ""))
        return row
