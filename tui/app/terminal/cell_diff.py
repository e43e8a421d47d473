"""Writes only the cells that were refreshed to the terminal.

Textual 8 knows which spans of a row are dirty, but it writes each span from the left edge of its widget, and a row with
two spans twice. For a status line or a chart in which a few digits change, that is most of the bytes sent over ssh.
"""

from __future__ import annotations

from typing import Any

from rich.console import Console, RenderableType
from rich.control import Control

# Textual has no public hook for what it writes: ChopsUpdate is its partial update, App._display writes it.
from textual._compositor import ChopsUpdate
from textual.app import App
from textual.screen import Screen


class CellDiff(ChopsUpdate):
    """The same update, with each strip cropped to both ends of its span."""

    @classmethod
    def from_update(cls, update: ChopsUpdate) -> CellDiff:
        return cls(update.chops, update.spans, update.chop_ends)

    def render_segments(self, console: Console) -> str:
        out: list[str] = []
        for y, x1, x2 in self.spans:
            for end, (x, strip) in zip(self.chop_ends[y], self.chops[y].items(), strict=False):
                start, stop = max(x, x1), min(end, x2)
                if strip is None or start >= stop:
                    continue
                out.append(Control.move_to(start, y).segment.text)
                out.append(strip.crop(start - x, stop - x).render(console))
        return "".join(out)


class CellDiffApp(App[int]):
    """An app that writes its partial updates as ``CellDiff``."""

    def _display(self, screen: Screen[Any], renderable: RenderableType | None) -> None:
        if isinstance(renderable, ChopsUpdate):
            renderable = CellDiff.from_update(renderable)
        super()._display(screen, renderable)
