"""The ways to make a run smaller, to choose from: the first line stands for no change. Enter picks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tui.app.actions.registry import LEVERS
from tui.app.widgets.canvas import Row
from tui.app.widgets.selectable_list import SelectableList
from tui.text import lever_table as table

if TYPE_CHECKING:
    from engine.memory.levers import Lever


_NARROW = 60  # cells


class LeverList(SelectableList, actions=LEVERS):
    def __init__(self, now: str, applies: str = "") -> None:
        """``now`` is what the run is; ``applies`` heads the column of when, for a run that lives."""
        super().__init__(id="levers")
        self._now = now
        self._applies = applies
        self._ways: list[Lever] = []
        self._places: list[str] = []

    def show(self, ways: list[Lever]) -> None:
        self._ways = ways
        self._places = ["device", "host"] if any(way.device_saved for way in ways) else ["host"]
        self.redraw()

    def _shown(self, width: int) -> list[str]:
        """Of two memories only the device's where lines are short: what a way changes must be readable."""
        return self._places if width >= _NARROW else self._places[:1]

    def reset(self) -> None:
        """Back to no change, without a word to anybody."""
        self.cursor = 0
        self.redraw()

    @property
    def lever(self) -> Lever | None:
        return self._ways[self.cursor - 1] if self.cursor else None

    def header(self, width: int) -> Row | None:
        return [(table.heading("  smaller, by cost", self._shown(width), width - 1, self._applies), "list--header")]

    def count(self) -> int:
        return 1 + len(self._ways)

    def row(self, index: int, width: int) -> Row:
        if index == 0:
            return [(f"  as it is: {self._now}", "")]
        way = self._ways[index - 1]
        text = table.line(way, self._shown(width), width - 1, way.when if self._applies else "")
        return [(text, "" if way.fits else "list--dim")]

    def action_choose(self) -> None:
        self.post_message(self.Activated(self, self.cursor))
