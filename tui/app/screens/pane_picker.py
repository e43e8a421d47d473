"""Chooses the metrics that have a pane on the monitor besides loss, VRAM, RAM offload and tokens/s."""

from __future__ import annotations

from textual import getters
from textual.app import ComposeResult
from textual.widgets import Static

from tui.app.actions.registry import PANES
from tui.app.base import AppModal, BaseApp
from tui.app.screens.panes import usual_panes
from tui.app.state.pane_metrics import PANE_METRICS
from tui.app.state.run_view import RunView
from tui.app.widgets.canvas import Row
from tui.app.widgets.dialog import Dialog
from tui.app.widgets.selectable_list import SelectableList
from tui.text import format as fmt
from tui.text.ellipsis import clip

_ROW = 36  # cells of a line, from which the eye finds the value of a metric


class MetricList(SelectableList):
    """Every metric that can have a pane, with its newest value in the run."""

    app = getters.app(BaseApp)

    def __init__(self, chosen: list[str], view: RunView) -> None:
        super().__init__(id="metrics")
        self.chosen = chosen
        self._view = view
        self._names = list(PANE_METRICS)

    @property
    def selected(self) -> str:
        return self._names[self.cursor]

    def count(self) -> int:
        return len(self._names)

    def row(self, index: int, width: int) -> Row:
        metric = PANE_METRICS[self._names[index]]
        mark = "●" if metric.name in self.chosen else "○"
        value = fmt.formatter(metric.format)(self._view.last(metric.name))
        room = min(width, _ROW) - len(value) - 1  # no digit of a value is cut off
        title = clip(f" {mark} {metric.title}", room)
        return [(f"{title:<{room + 1}}", ""), (value, "list--dim")]


class PanePicker(AppModal["list[str] | None"], actions=PANES):
    """Dismisses with the chosen metrics in the order of their list, or with None if the choice did not change."""

    CSS_PATH = "../styles/dialogs.tcss"

    def __init__(self, chosen: list[str], view: RunView) -> None:
        super().__init__()
        self._before, self._view = list(chosen), view
        self._list = MetricList(list(chosen), view)

    def compose(self) -> ComposeResult:
        with Dialog(
            "Space adds or removes, d default, q keeps the choice", "Space changes, q keeps it", "Space, q done"
        ):
            yield Static("Panes after loss, VRAM, RAM offload and tokens/s", classes="dialog-title")
            yield self._list

    def on_mount(self) -> None:
        self._list.focus()

    def action_add_or_remove(self) -> None:
        chosen = set(self._list.chosen) ^ {self._list.selected}
        self._list.chosen = [name for name in PANE_METRICS if name in chosen]
        self._list.redraw()

    def on_selectable_list_activated(self) -> None:
        self.action_add_or_remove()

    def action_usual(self) -> None:
        self._list.chosen = usual_panes(self._view)
        self._list.redraw()

    def action_back(self) -> None:
        self.dismiss(None if self._list.chosen == self._before else self._list.chosen)
