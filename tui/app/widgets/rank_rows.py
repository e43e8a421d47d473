"""Shows memory, speed and data wait of every rank of a run that has several; only changed digits are sent."""

from __future__ import annotations

from typing import ClassVar

from textual.geometry import Size

from engine.events.types import RankStats
from tui.app.widgets.canvas import Canvas, Row
from tui.text import format as fmt

_CELLS = 39  # of a rank without its number
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
        count = len(self._stats.tok_s)
        digits = len(str(count - 1))
        columns, most = max(width // (_CELLS + digits), 1), max(self.app.size.height // _SHARE, 2)
        ranks = list(range(count))
        if count <= columns * most:
            cells = [self._cell(f"{rank:<{digits}}", rank) for rank in ranks]
        else:
            places = columns * most - (columns > 1)
            slowest = sorted(sorted(ranks, key=self._stats.tok_s.__getitem__)[:places])
            if columns > 1:  # the first place says how many there are
                note = f" the slowest {places} of {count} ranks"
                first: Row = [(f"{note:<{_CELLS + digits}}", "ranks--label")]
                cells = [first, *(self._cell(f"{rank:<{digits}}", rank) for rank in slowest)]
            else:
                cells = [self._cell(f"{rank:>{digits}} of {count}", rank) for rank in slowest]
        rows = [cells[at : at + columns] for at in range(0, len(cells), columns)]
        return [[span for cell in row for span in cell] for row in rows]

    def _cell(self, name: str, rank: int) -> Row:
        stats = self._stats
        assert stats is not None
        row: Row = [(f" rank {name}", "ranks--label"), (f"{fmt.size(stats.memory[rank]):>9}", "ranks--value")]
        row += [(f"{fmt.count(stats.tok_s[rank]):>6}", "ranks--value"), (" tok/s", "ranks--label")]
        row += [(" data ", "ranks--label"), (f"{fmt.duration(stats.data_s[rank]):<6}", "ranks--value")]
        return row
