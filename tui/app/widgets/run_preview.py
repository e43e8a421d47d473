"""Shows the selected run beside the list: reason of its end, labels, trend of the loss, spec, last sample."""

from __future__ import annotations

from typing import ClassVar

from engine.events.status import Summary
from profiles.printable import one_line
from tui.app.state import raster
from tui.app.state.run_filter import needs_attention
from tui.app.state.run_preview import RunPreview
from tui.app.widgets.canvas import Canvas, Row
from tui.text import format as fmt
from tui.text.ellipsis import clip, wrap_clipped

_CHART = 6  # lines
_TEXT = 4  # lines of a reason, a note or a sample at most
_TITLE = 11  # cells


class PreviewPane(Canvas):
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *("preview--title", "preview--text", "preview--dim", "preview--bad", "preview--chart"),
    }

    def __init__(self) -> None:
        super().__init__(id="preview")
        self._run: Summary | None = None
        self._preview: RunPreview | None = None

    def show(self, run: Summary | None, preview: RunPreview | None) -> None:
        """Show ``run``; what is not read yet, or of another run, is left out."""
        self._run = run
        self._preview = preview if run is not None and preview is not None and preview.id == run.id else None
        self.redraw()

    def draw(self, width: int, height: int) -> list[Row]:
        run, cells = self._run, width - 2
        if run is None or cells < 8:
            return []
        rows: list[Row] = [[(f" {clip(run.name or run.id, cells)}", "preview--title")]]
        if run.reason:
            style = "preview--bad" if needs_attention(run) else "preview--text"
            rows += _wrapped(f"{run.phase}: {run.reason}", cells, style)
        if run.tags:
            rows += _wrapped(" ".join(f"#{tag}" for tag in run.tags), cells, "preview--text")
        if run.note:
            rows += _wrapped(run.note, cells, "preview--text")
        if self._preview is not None:
            rows += self._read_rows(self._preview, cells)
        return rows[:height]

    def _read_rows(self, preview: RunPreview, cells: int) -> list[Row]:
        rows: list[Row] = []
        if len(preview.loss) > 1:
            rows += [[], *_chart(preview.loss, cells)]
        rows += [[]] if preview.spec else []
        for title, value in preview.spec:
            rows.append([(f" {title:<{_TITLE}}", "preview--dim"), (clip(value, cells - _TITLE), "preview--text")])
        if preview.sample is not None:
            rows += [[], [(f" sample at step {fmt.exact(preview.sample.step)}", "preview--dim")]]
            rows += _wrapped(one_line(preview.sample.prompt + preview.sample.text), cells, "preview--text")
        return rows


def _wrapped(text: str, cells: int, style: str) -> list[Row]:
    return [[(f" {line}", style)] for line in wrap_clipped(text, cells, _TEXT)]


def _chart(loss: list[tuple[float, float]], cells: int) -> list[Row]:
    """Return the line of the loss with its first, lowest and last value."""
    points = [(x, mean, mean, mean) for x, mean in loss]
    columns = raster.to_columns(points, points[0][0], points[-1][0], cells * 2)
    limits = raster.value_range(columns)
    if limits is None:
        return []
    masks = raster.line_masks(columns, raster.linear_axis(*limits, 2), _CHART * 4)
    means = [mean for _, mean in loss]
    text = f"loss {fmt.loss(means[0])} → {fmt.loss(means[-1])}, lowest {fmt.loss(min(means))}"
    rows: list[Row] = [[(f" {clip(text, cells)}", "preview--dim")]]
    return rows + [[(f" {line}", "preview--chart")] for line in raster.braille_rows(masks, _CHART)]
