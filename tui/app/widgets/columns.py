"""Text in columns: each a number of cells, aligned right where that is below zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.cells import cell_len

from tui.app.widgets.canvas import Row
from tui.text.ellipsis import clip

Columns = Sequence[tuple[str, int, str]]
"""(key, cells, title) each."""


def cut(text: str, cells: int) -> str:
    """``text`` in exactly that many cells."""
    text = clip(text, abs(cells))
    gap = " " * (abs(cells) - cell_len(text))
    return gap + text if cells < 0 else text + gap


def head(columns: Columns) -> Row:
    return line(columns, {key: (title, "list--header") for key, _, title in columns})


def line(columns: Columns, fields: Mapping[str, tuple[str, str]]) -> Row:
    """``fields`` are text and style by key; those of columns that are not shown are left out."""
    return [(" ", ""), *((cut(fields[key][0], cells) + " ", fields[key][1]) for key, cells, _ in columns)]
