"""Shows one line about the selected run: its full id, and what has no column in a narrow terminal."""

from __future__ import annotations

from typing import Any, ClassVar

from rich.cells import cell_len

from tui.app.state.run_list import needs_attention
from tui.app.widgets.canvas import Canvas, Row
from tui.text import format as fmt
from tui.text.ellipsis import clip
from tui.text.run_text import phase_name


class RunDetail(Canvas):
    COMPONENT_CLASSES: ClassVar[set[str]] = {"run-detail--text", "run-detail--bad"}

    def __init__(self) -> None:
        super().__init__()
        self._run: dict[str, Any] | None = None
        self.display = False

    def show(self, run: dict[str, Any] | None) -> None:
        self._run, self.display = run, run is not None
        self.redraw()

    def draw(self, width: int, height: int) -> list[Row]:
        run = self._run
        if run is None:
            return []
        reason = str(run.get("reason") or "")
        described = reason if phase_name(run) != run.get("phase") else f"{run.get('phase')}: {reason}"
        parts = [described] if reason else []
        damage = str(run.get("damage") or "")
        if damage and damage != reason:
            parts.insert(0, damage)
        name = str(run.get("name") or "")
        if name and name != run["id"]:
            parts.append(name)
        parts.append(str(run["id"]))
        if run.get("val_loss") is not None:
            parts.append(f"val {fmt.loss(run['val_loss'])}")
        if run.get("micro") and run.get("accum"):
            parts.append(f"batch {run['micro']}×{run['accum']}, context {run.get('context') or '?'}")
        if (run.get("attempt") or 1) > 1:
            parts.append(f"attempt {run['attempt']}")
        text = parts[0]
        for part in parts[1:]:  # complete parts only
            if cell_len(text) + cell_len(part) + 4 > width:
                break
            text += f" · {part}"
        return [[(" " + clip(text, width - 1), "run-detail--bad" if needs_attention(run) else "run-detail--text")]]
