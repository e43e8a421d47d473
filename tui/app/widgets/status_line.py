"""Shows the current values of a run in two lines, in a tall terminal three; only changed digits are sent."""

from __future__ import annotations

import time
from typing import ClassVar

from rich.cells import cell_len
from textual.geometry import Size

from engine.events.metric import Metric
from engine.events.metrics import STEP_METRICS, TELEMETRY_METRICS, VAL_LOSS, VAL_METRICS
from engine.events.phases import CUT_OFF, FAILED, FINISHED, RUNNING
from tui.app.state import outlook
from tui.app.state.outlook import Checkpoints
from tui.app.state.run_view import RunView
from tui.app.widgets.canvas import Canvas, Row
from tui.text import format as fmt

_TALL = 30  # lines of a terminal with a third line
_TONES = {RUNNING: "good", FINISHED: "good", FAILED: "bad", CUT_OFF: "bad"}


class StatusLine(Canvas):
    """Items that do not fit are dropped at the right end of their line.

    A terminal without the third line shows as many of its items as fit behind the second.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *("status--label", "status--value", "status--good", "status--busy", "status--bad", "status--bar"),
    }

    def __init__(self) -> None:
        super().__init__()
        self._view: RunView | None = None
        self._checkpoints = Checkpoints()

    def show(self, view: RunView, checkpoints: Checkpoints) -> None:
        self._view, self._checkpoints = view, checkpoints
        self.redraw()

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return 3 if viewport.height >= _TALL else 2

    def draw(self, width: int, height: int) -> list[Row]:
        view = self._view
        if view is None:
            return []
        now = time.time()
        phase = f" {view.phase_name} "
        progress = f"step {fmt.exact(view.step)}/{fmt.exact(view.steps)}"
        tone = "busy" if view.is_remote else _TONES.get(view.phase, "busy")
        first: Row = [(phase, f"status--{tone}"), (f" {progress} ", "status--value")]
        if view.steps:
            fraction = min(view.step / view.steps, 1.0)
            first += [(f"{fraction:.0%} ", "status--label"), *_bar(fraction, 7 if width < 100 else min(width // 8, 24))]
        else:
            first.append((" ", ""))
        if view.active and not view.is_remote:
            seconds = view.eta()
            first += _item("ETA", fmt.duration(seconds), 8)
            first += _item("ends", outlook.finish_text(now, seconds), 5)
        if view.phase == CUT_OFF and (at := view.restarts_at or 0) < view.step:
            first += _item("resumes at", fmt.exact(at), 1)
        if view.active and view.last_step != view.steps:
            first += _item("stops at", fmt.exact(view.last_step), 1)
        if view.active and not view.is_remote:
            first += _micro(view, 0 if width < 100 else min(width // 16, 12))
            if (left := view.tokens_left()) is not None:
                first += _item("tokens left", fmt.count(left), 5)
        if (elapsed := view.elapsed(now)) is not None:
            first += _item("elapsed", fmt.rough_duration(elapsed), 3)
        if view.attempt > 1 or width >= 120:
            first += _item("attempt", str(view.attempt), 1)
        second: Row = [(" ", "")]
        for metric in (*STEP_METRICS, *VAL_METRICS):  # values that change as often are neighbours: one write per step
            if metric.status:
                second += _item(metric.title, _metric_text(view, metric), metric.status)
        second += _item("batch", f"{view.micro or '?'}×{view.accum or '?'}", 5)
        second += _item("context", str(view.context or "?"), 5)
        for metric in TELEMETRY_METRICS:
            if metric.status and view.at_step(metric.name) is not None:  # a machine may not have the sensor
                second += _item(metric.title, _metric_text(view, metric), metric.status)
        third: Row = []
        for label, value, cells in outlook.items(view, self._checkpoints, now):
            third += _item(label, value, cells)
        if height < 3:
            return [_complete_items(first, width), _complete_items([*second, *third], width)]
        return [_complete_items(line, width) for line in (first, second, [(" ", ""), *third])]


def _micro(view: RunView, cells: int) -> Row:
    """Return the progress within the step: micro-batches done, as numbers and as a bar."""
    done, total = view.progress or (0, view.accum or 0)
    row = _item("micro", f"{done}/{total}", 5)
    return [*row, *_bar(done / total, cells)] if total > 1 and cells else row


def _metric_text(view: RunView, metric: Metric) -> str:
    value = view.val_loss if metric.name == VAL_LOSS else view.at_step(metric.name)
    return fmt.formatter(metric.format)(value)


def _item(label: str, value: str, cells: int) -> Row:
    """Return a value padded to a fixed width, so that its neighbours do not move, and two cells from the next label."""
    return [(f" {label} " if label else " ", "status--label"), (f"{value.ljust(cells - 1)} ", "status--value")]


def _bar(fraction: float, cells: int) -> Row:
    full = int(fraction * cells)
    return [("━" * full, "status--bar"), ("─" * (cells - full), "status--label")]


def _complete_items(row: Row, width: int) -> Row:
    """Drop a value that would be clipped, together with its label."""
    left, kept = width, 0
    for i, (text, _) in enumerate(row):
        left -= cell_len(text.rstrip())
        if left < 0:
            kept -= kept and row[kept - 1][1] == "status--label" and row[kept - 1][0].startswith(" ")
            break
        left -= cell_len(text) - cell_len(text.rstrip())
        kept = i + 1
    return row[:kept]
