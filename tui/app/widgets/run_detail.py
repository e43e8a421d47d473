"""Shows one line about the selected run: its full id, and what has no column in a narrow terminal."""

from __future__ import annotations

from typing import ClassVar

from rich.cells import cell_len

from engine.events.status import Summary
from tui.app.state.run_filter import needs_attention
from tui.app.widgets.canvas import Canvas, Row
from tui.text import format as fmt
from tui.text.ellipsis import clip
from tui.text.run_text import STALLED, describe_labels, is_stalled, phase_name, resumes_at


class RunDetail(Canvas):
    COMPONENT_CLASSES: ClassVar[set[str]] = {"run-detail--text", "run-detail--bad"}

    def __init__(self) -> None:
        super().__init__()
        self._run: Summary | None = None
        self.display = False

    def show(self, run: Summary | None) -> None:
        self._run, self.display = run, run is not None
        self.redraw()

    def draw(self, width: int, height: int) -> list[Row]:
        run = self._run
        if run is None:
            return []
        reason = run.reason or ""
        described = reason if phase_name(run) != run.phase else f"{run.phase}: {reason}"
        parts = [described] if reason else []
        if (at := resumes_at(run)) is not None:
            parts.append(f"resumes at step {fmt.exact(at)}")
        if is_stalled(run):
            parts.insert(0, f"{STALLED}: {run.stalled}")
        damage = run.damage or ""
        if damage and damage != reason:
            parts.insert(0, damage)
        name = run.name or ""
        if name and name != run.id:
            parts.append(name)
        left = width - cell_len(" · ".join([*parts, run.id])) - 4
        if (labels := describe_labels(run)) and left > 0:
            parts.append(clip(labels, left))  # of many tags or a long note as much as leaves the id in sight
        parts.append(run.id)
        if run.val_loss is not None:
            parts.append(f"val {fmt.loss(run.val_loss)}")
        if run.micro and run.accum:
            parts.append(f"batch {run.micro}×{run.accum}, context {run.context or '?'}")
        if (run.attempt or 1) > 1:
            parts.append(f"attempt {run.attempt}")
        text = parts[0]
        for part in parts[1:]:  # complete parts only
            if cell_len(text) + cell_len(part) + 4 > width:
                break
            text += f" · {part}"
        return [[(" " + clip(text, width - 1), "run-detail--bad" if needs_attention(run) else "run-detail--text")]]
