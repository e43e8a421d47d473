"""Lists changes that make a run faster or smaller, for selection; the first line means no change. Enter selects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tui.app.actions.registry import LEVERS
from tui.app.widgets.canvas import Row
from tui.app.widgets.selectable_list import SelectableList
from tui.text import lever_table as table

if TYPE_CHECKING:
    from engine.memory.search.levers import Lever


_NARROW = 60  # cells


class LeverList(SelectableList, actions=LEVERS):
    def __init__(self, current: str, applies: str = "") -> None:
        """``current`` describes the unchanged run. ``applies`` is the title of the column that says when a lever takes
        effect; empty: no such column."""
        super().__init__(id="levers")
        self._current = current
        self._applies = applies
        self._levers: list[Lever] = []
        self._memories: list[str] = []

    def show(self, levers: list[Lever]) -> None:
        self._levers = levers
        self._memories = ["device", "host"] if any(lever.device_saved for lever in levers) else ["host"]
        self.redraw()

    def _visible_memories(self, width: int) -> list[str]:
        """Return the memories with a column; a narrow list shows one, so that the change stays readable."""
        return self._memories if width >= _NARROW else self._memories[:1]

    def reset(self) -> None:
        """Select no change, without a message."""
        self.cursor = 0
        self.redraw()

    @property
    def lever(self) -> Lever | None:
        return self._levers[self.cursor - 1] if self.cursor else None

    def header(self, width: int) -> Row | None:
        title = "  Changes, fastest first" if width >= _NARROW else "  Changes"
        return [(table.heading(title, self._visible_memories(width), width - 1, self._applies), "list--header")]

    def count(self) -> int:
        return 1 + len(self._levers)

    def row(self, index: int, width: int) -> Row:
        if index == 0:
            return [(f"  unchanged: {self._current}", "")]
        lever = self._levers[index - 1]
        text = table.line(lever, self._visible_memories(width), width - 1, lever.when if self._applies else "")
        return [(text, "" if lever.fits else "list--dim")]

    def action_choose(self) -> None:
        self.post_message(self.Activated(self, self.cursor))
