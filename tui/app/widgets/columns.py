"""Aligns rows of text in columns. A column of negative width is right-aligned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Protocol, TypeVar

from rich.cells import cell_len

from tui.app.widgets.canvas import Row
from tui.text.ellipsis import clip

Columns = Sequence[tuple[str, int, str]]
"""(key, width in cells, title) of each column."""


class HasWidth(Protocol):
    @property
    def width(self) -> int: ...


C = TypeVar("C", bound=HasWidth)


def fitting(found: Sequence[C], cells: int) -> list[C]:
    """Return the first columns that ``cells`` show whole: a number of which a part is cut reads as another one."""
    ends = accumulate(abs(column.width) + 1 for column in found)  # with the space behind
    return [column for column, end in zip(found, ends, strict=True) if end - 1 <= cells]


def fit_text(text: str, width: int) -> str:
    """Clip or pad ``text`` to exactly ``abs(width)`` cells."""
    text = clip(text, abs(width))
    padding = " " * (abs(width) - cell_len(text))
    return padding + text if width < 0 else text + padding


def header_row(columns: Columns) -> Row:
    return row(columns, {key: (title, "list--header") for key, _, title in columns})


def row(columns: Columns, fields: Mapping[str, tuple[str, str]]) -> Row:
    """Return a row of ``fields`` (text and style by key); fields without a column are left out."""
    return [(" ", ""), *((fit_text(fields[key][0], width) + " ", fields[key][1]) for key, width, _ in columns)]
