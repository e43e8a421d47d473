"""Arranges the panes of the monitor: as many as fit, the others on further pages, or one alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.containers import Grid

from tui.app.screens import panes
from tui.app.screens.panes import Pane
from tui.app.state.run_view import RunView
from tui.app.widgets.chart import CHART_STYLES

_MIN_WIDTH, _MIN_HEIGHT = 38, 8  # cells of a pane, where there are more than those of the first page
_ASPECT = 4.0  # width of a pane in cells divided by its height, as it is read best


def grid_size(count: int, first: int, width: int, height: int) -> tuple[int, int]:
    """Return columns and rows for as many of ``count`` panes as fit, but never fewer than the ``first``.

    If all fit, the grid with the fewest empty places; of several, that whose panes are nearest to the wanted shape.
    """
    columns, rows = max(width // _MIN_WIDTH, 2), max(height // _MIN_HEIGHT, math.ceil(first / 2))
    if columns * rows <= count:
        return columns, rows
    sizes = [(c, math.ceil(count / c)) for c in range(1, columns + 1) if math.ceil(count / c) <= rows]

    def cost(size: tuple[int, int]) -> tuple[int, float]:
        c, r = size
        return c * r - count, abs(math.log((width / c) / max(height / r, 1) / _ASPECT))

    return min(sizes, key=cost)


class PaneGrid(Grid):
    """The panes of the first page, then those of other metrics."""

    COMPONENT_CLASSES: ClassVar[set[str]] = CHART_STYLES

    def __init__(self, view: RunView) -> None:
        super().__init__(id="panes")
        self._first = panes.first_page(view)
        self._others: dict[str, Pane] = {}
        self._names: list[str] = []  # of the other panes, in order
        self._page = 0
        self.maximized: Pane | None = None

    def compose(self) -> list[Pane]:
        return list(self._first)

    @property
    def panes(self) -> list[Pane]:
        return [*self._first, *(self._others[name] for name in self._names)]

    @property
    def loss(self) -> Pane:
        return self._first[0]

    @property
    def names(self) -> list[str]:
        """The metrics that have a pane besides those of the first page."""
        return self._names

    @property
    def on_page(self) -> list[Pane]:
        """The panes on screen."""
        if self.maximized is not None:
            return [self.maximized]
        every = self.panes
        per_page = math.prod(self._columns_and_rows)
        return every[self._page * per_page : (self._page + 1) * per_page]

    @property
    def _columns_and_rows(self) -> tuple[int, int]:
        return grid_size(len(self.panes), len(self._first), self.size.width, self.size.height)

    @property
    def pages(self) -> int:
        return math.ceil(len(self.panes) / math.prod(self._columns_and_rows))

    @property
    def page(self) -> int:
        """The page on screen, from 0."""
        return self._page

    @property
    def dot_columns(self) -> int:
        """The width of a plot in columns of dots."""
        return max(self.on_page[0].dot_columns, 2)

    def choose(self, names: Sequence[str]) -> None:
        """Add the panes of the metrics ``names`` to those of the first page, in place of the others there were."""
        if list(names) == self._names:
            return
        added = [name for name in names if name not in self._others]
        for name in added:
            self._others[name] = panes.metric_pane(name)
            self._others[name].smoothing = self._first[-1].smoothing
            self._others[name].display = False
        self._names = list(names)
        if added:
            self.mount(*(self._others[name] for name in added))
        if any(self._others[name].parent is not self for name in names):
            return  # the screen is closing
        for place, name in enumerate(names[1:]):
            self.move_child(self._others[name], after=self._others[names[place]])
        self.lay_out()

    def turn(self, by: int) -> None:
        """Show another page; behind the last comes the first."""
        self.maximized = None
        self._page = (self._page + by) % self.pages
        self.lay_out()
        if self.screen.focused not in self.on_page:
            self.on_page[0].focus()

    def bring(self, pane: Pane) -> None:
        """Show the page of a pane."""
        if self.maximized is not None:
            self.maximized = pane
        self._page = self.panes.index(pane) // math.prod(self._columns_and_rows)
        self.lay_out()

    def lay_out(self) -> None:
        """Show the panes of the page."""
        columns, rows = self._columns_and_rows
        self._page = min(self._page, self.pages - 1)
        visible = self.on_page
        if self.maximized is not None:
            columns = rows = 1
        elif self._page:
            rows = math.ceil(len(visible) / columns)  # the last page may have fewer
        if (self.styles.grid_size_columns, self.styles.grid_size_rows) != (columns, rows):
            self.styles.grid_size_columns, self.styles.grid_size_rows = columns, rows
        for pane in (*self._first, *self._others.values()):
            pane.display = pane in visible
        if len(self._first) == 3:  # with unified memory
            self._first[0].styles.column_span = columns if columns * rows == 4 and len(visible) == 3 else 1

    def on_resize(self, event: events.Resize) -> None:
        self.lay_out()
