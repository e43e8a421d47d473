"""Writes only the cells that were refreshed to the terminal, and of their styles only what changes.

Textual 8 knows which spans of a row are dirty, but it writes each span from the left edge of its widget, a row with two
spans twice, and the whole style of every piece of text. For a status line or a chart in which a few digits change, that
is most of the bytes sent over ssh.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, RenderableType

# Textual has no public hook for what it writes: these are its updates, App._display writes them.
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.app import App
from textual.screen import Screen
from textual.strip import Strip

from tui.app.terminal.pen import Pen


class CellDiff(ChopsUpdate):
    """The same update, with of each strip only what is in its span."""

    @classmethod
    def from_update(cls, update: ChopsUpdate) -> CellDiff:
        return cls(update.chops, update.spans, update.chop_ends)

    def render_segments(self, console: Console) -> str:
        pen = Pen(console)
        for y, x1, x2 in self.spans:
            for end, (x, strip) in zip(self.chop_ends[y], self.chops[y].items(), strict=False):
                start, stop = max(x, x1), min(end, x2)
                if strip is None or start >= stop:
                    continue
                pen.move_to(start, y)
                pen.write(strip, start - x, stop - x)
        return pen.finish()


class WholeScreen(LayoutUpdate):
    """The same update of a whole screen."""

    @classmethod
    def from_update(cls, update: LayoutUpdate) -> WholeScreen:
        return cls(update.strips, update.region)

    def render_segments(self, console: Console) -> str:
        pen = Pen(console)
        for y, line in enumerate(self.strips, self.region.y):
            pen.move_to(self.region.x, y)
            for strip in line:
                pen.write(strip)
        return pen.finish()


class CellDiffApp(App[int]):
    """An app that writes its updates as ``CellDiff`` and ``WholeScreen``."""

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        written = renderable
        if isinstance(renderable, ChopsUpdate):
            written = CellDiff.from_update(renderable)
        elif isinstance(renderable, LayoutUpdate):
            written = WholeScreen.from_update(renderable)
        super()._display(screen, written)
        if isinstance(renderable, ChopsUpdate):
            _free_strips(line.values() for line in renderable.chops)
        elif isinstance(renderable, LayoutUpdate):
            _free_strips(renderable.strips)


def _free_strips(lines: Iterable[Iterable[Strip | None]]) -> None:
    """Let strips go when the next are drawn. A strip in one piece keeps itself as its only part, which is a cycle.

    A key at 200×50 would leave 7000 objects to the garbage collector, and every 20th key would wait 80 ms for it.
    """
    for line in lines:
        for strip in line:
            if strip is not None:
                strip._divide_cache.clear()
