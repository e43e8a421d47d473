"""Shows memory, speed and data wait of every rank of a run that has several; only changed digits are sent."""

from __future__ import annotations

from typing import ClassVar

from textual.geometry import Size

from engine.events.types import RankStats
from tui.app.widgets.canvas import Canvas, Row
from tui.text import format as fmt

_CELLS = 48  # of a rank, with the space behind it
_SHARE = 8  # the part of the terminal's lines that the ranks may take


class RankRows(Canvas):
    """Where they do not all fit, the slowest are shown. Hidden while there is nothing to show."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"ranks--label", "ranks--value"}

    def __init__(self) -> None:
        super().__init__()
        self._stats: RankStats | None = None
        self.display = False

    def show(self, stats: RankStats | None) -> None:
        if stats is None or not len(stats.memory) == len(stats.tok_s) == len(stats.data_s):
            return  # a damaged record
        if stats is not self._stats:
            before, self._stats = self._stats, stats
            if before is None or len(before.tok_s) != len(stats.tok_s):
                self.display = True
                self.refresh(layout=True)
            self.redraw()

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._lines(width))

    def draw(self, width: int, height: int) -> list[Row]:
        return self._lines(width)

    def _lines(self, width: int) -> list[Row]:
        if self._stats is None:
            return []
        columns, most = max(width // _CELLS, 1), max(self.app.size.height // _SHARE, 2)
        ranks = range(len(self._stats.tok_s))
        if len(ranks) > columns * most:
            # The first place says how many there are.
            slowest = sorted(ranks, key=self._stats.tok_s.__getitem__)[: columns * most - 1]
            cells = [self._note(len(slowest)), *(self._cell(rank) for rank in sorted(slowest))]
        else:
            cells = [self._cell(rank) for rank in ranks]
        rows = [cells[first : first + columns] for first in range(0, len(cells), columns)]
        return [[span for cell in row for span in cell] for row in rows]

    def _note(self, shown: int) -> Row:
        assert self._stats is not None
        text = f" the slowest {shown} of {len(self._stats.tok_s)} ranks"
        return [(f"{text:<{_CELLS}}", "ranks--label")]

    def _cell(self, rank: int) -> Row:
        stats = self._stats
        assert stats is not None
        row: Row = [(f" rank {rank:<3}", "ranks--label"), (f"{fmt.size(stats.memory[rank]):>9}", "ranks--value")]
        row += [(f"{fmt.count(stats.tok_s[rank]):>7}", "ranks--value"), (" tok/s", "ranks--label")]
        row += [("  data ", "ranks--label"), (f"{fmt.duration(stats.data_s[rank]):<{_CELLS - 38}}", "ranks--value")]
        return row
