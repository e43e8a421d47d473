"""The checkpoints of a run as lines; columns give way as the terminal narrows."""

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
        self.kept: list[SavedCheckpoint] = []
        self.verified: dict[str, str] = {}  # what reading every byte of a checkpoint found; nothing: it is whole
        self.empty_text = "looking for checkpoints …"

    def show(self, kept: list[SavedCheckpoint]) -> None:
        """Replace the lines; the cursor stays on the checkpoint it was on."""
        selected = self.selected
        self.kept = kept
        if selected is not None:
            self.cursor = next((i for i, one in enumerate(kept) if one.path == selected.path), self.cursor)
        self.redraw()

    @property
    def selected(self) -> SavedCheckpoint | None:
        return self.kept[self.cursor] if 0 <= self.cursor < len(self.kept) else None

    def count(self) -> int:
        return len(self.kept)

    def _columns(self, width: int) -> list[tuple[str, int, str]]:
        """(key, cells, title); negative cells align right."""
        shown = [("step", -9, "step"), ("when", 6, "when"), ("size", -8, "size"), ("loss", -7, "loss")]
        if width >= 72:
            shown += [("val", -7, "val"), ("why", 13, "written")]
        return [*shown, ("state", 9, "files"), ("mark", 12, "")]

    def header(self, width: int) -> Row | None:
        if not self.kept:
            return None
        return columns.head(self._columns(width))

    def row(self, index: int, width: int) -> Row:
        one = self.kept[index]
        marks = [mark for mark, holds in (("newest", one.newest), ("best", one.best)) if holds]
        return columns.line(
            self._columns(width),
            {
                "step": (fmt.exact(one.step), ""),
                "when": (fmt.timestamp(one.written), "list--dim"),
                "size": (fmt.size(one.bytes), ""),
                "loss": (fmt.loss(one.loss), ""),
                "val": (fmt.loss(one.val_loss), ""),
                "why": (one.why or fmt.NOTHING, "list--dim"),
                "state": self._state(one),
                "mark": (" ".join(marks), "checkpoints--mark"),
            },
        )

    def _state(self, one: SavedCheckpoint) -> tuple[str, str]:
        found = self.verified.get(one.path)
        if one.damage or found:
            return "damaged", "checkpoints--bad"
        return ("verified", "checkpoints--good") if found == "" else ("complete", "")

    def placeholder(self, width: int, height: int) -> list[Row]:
        lines = self.empty_text.splitlines()
        top: list[Row] = [[] for _ in range(max((height - len(lines)) // 2, 0))]
        return top + [[(line.center(width), "list--dim")] for line in lines]
