"""Lists the checkpoints of a run; narrow terminals show fewer columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from tui.app.widgets import columns
from tui.app.widgets.canvas import Row
from tui.app.widgets.selectable_list import SelectableList
from tui.text import format as fmt

if TYPE_CHECKING:
    from engine.checkpoints.inventory import SavedCheckpoint


class CheckpointList(SelectableList):
    COMPONENT_CLASSES: ClassVar[set[str]] = {"checkpoints--good", "checkpoints--bad", "checkpoints--mark"}

    def __init__(self) -> None:
        super().__init__(id="checkpoints")
        self.checkpoints: list[SavedCheckpoint] = []
        self.verified: dict[str, str] = {}  # path → damage found by a full verification; empty: intact
        self.empty_text = "loading checkpoints …"

    def show(self, checkpoints: list[SavedCheckpoint]) -> None:
        """Replace the checkpoints; the cursor stays on the same one."""
        selected = self.selected
        self.checkpoints = checkpoints
        if selected is not None:
            same = (i for i, checkpoint in enumerate(checkpoints) if checkpoint.path == selected.path)
            self.cursor = next(same, self.cursor)
        self.redraw()

    @property
    def selected(self) -> SavedCheckpoint | None:
        return self.checkpoints[self.cursor] if 0 <= self.cursor < len(self.checkpoints) else None

    def count(self) -> int:
        return len(self.checkpoints)

    def _columns(self, width: int) -> list[tuple[str, int, str]]:
        """Return (key, width, title) of each column; a negative width aligns right."""
        layout = [("step", -9, "step"), ("time", 6, "time"), ("size", -8, "size"), ("loss", -7, "loss")]
        if width >= 72:
            layout += [("val", -7, "val"), ("why", 13, "reason")]
        return [*layout, ("state", 9, "files"), ("mark", 12, "")]

    def header(self, width: int) -> Row | None:
        if not self.checkpoints:
            return None
        return columns.header_row(self._columns(width))

    def row(self, index: int, width: int) -> Row:
        saved = self.checkpoints[index]
        known = ("newest", saved.newest), ("best", saved.best), ("start", saved.run is not None)
        marks = [mark for mark, is_set in known if is_set]
        return columns.row(
            self._columns(width),
            {
                "step": (fmt.exact(saved.step), ""),
                "time": (fmt.timestamp(saved.written), "list--dim"),
                "size": (fmt.size(saved.bytes), ""),
                "loss": (fmt.loss(saved.loss), ""),
                "val": self._val(saved),
                "why": (saved.why or fmt.NOTHING, "list--dim"),
                "state": self._state(saved),
                "mark": (" ".join(marks), "checkpoints--mark"),
            },
        )

    def _val(self, saved: SavedCheckpoint) -> tuple[str, str]:
        text = fmt.loss(saved.val_loss)
        return (text, "") if saved.is_validated else (f"~{text}", "list--dim")

    def _state(self, saved: SavedCheckpoint) -> tuple[str, str]:
        damage = self.verified.get(saved.path)
        if saved.damage or damage:
            return "damaged", "checkpoints--bad"
        return ("verified", "checkpoints--good") if damage == "" else ("complete", "")

    def placeholder(self, width: int, height: int) -> list[Row]:
        lines = self.empty_text.splitlines()
        top: list[Row] = [[] for _ in range(max((height - len(lines)) // 2, 0))]
        return top + [[(line.center(width), "list--dim")] for line in lines]
