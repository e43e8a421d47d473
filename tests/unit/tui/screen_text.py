"""Renders a screen as text for readable diffs.

First the characters, line by line. Then the styles of each line, run-length encoded: ``3 abc12 def7 .61`` is line 3
with 12 cells of style ``abc``, 7 of ``def`` and 61 of the most frequent one. A legend follows; the name of a style is
derived from the style, so that a new style renames no other.
"""

from __future__ import annotations

import zlib
from itertools import groupby
from typing import Any

from rich.cells import cell_len
from rich.style import Style
from textual.app import App
from textual.strip import Strip

Cell = tuple[str, str]
"""A character (empty in the second half of a wide one) and its style."""


def cells(app: App[Any]) -> list[list[Cell]]:
    """Return the cells of the screen of ``app``; only the private compositor has the whole screen."""
    return [_cells(strip) for strip in app.screen._compositor.render_strips()]


def _cells(strip: Strip) -> list[Cell]:
    row: list[Cell] = []
    for segment in strip:
        style = _describe(segment.style or Style())
        for char in segment.text:
            row += [(char, style)] + [("", style)] * (cell_len(char) - 1)
    return row


def _describe(style: Style) -> str:
    """Return ``bold #e0e0e0 on #1e1e1e``: the visible parts of a style, without links and click events."""
    words = [name for name in ("bold", "dim", "italic", "underline", "reverse", "strike") if getattr(style, name)]
    if style.color is not None:
        words.append(style.color.get_truecolor().hex if not style.color.is_default else "default")
    if style.bgcolor is not None and not style.bgcolor.is_default:
        words.append(f"on {style.bgcolor.get_truecolor().hex}")
    return " ".join(words) or "plain"


def text(screen: list[list[Cell]]) -> str:
    return "\n".join("".join(char for char, _ in row).rstrip() for row in screen) + "\n"


def styles(screen: list[list[Cell]]) -> str:
    """Return the style runs of each line, and the legend."""
    counts: dict[str, int] = {}
    for row in screen:
        for _, style in row:
            counts[style] = counts.get(style, 0) + 1
    most_frequent = max(counts, key=lambda style: counts[style])
    names = {style: "." if style == most_frequent else _name(style) for style in counts}
    assert len(set(names.values())) == len(names), "two styles have one name; make names longer"
    lines = []
    for y, row in enumerate(screen):
        runs = [(name, len(list(run))) for name, run in groupby(row, lambda cell: names[cell[1]])]
        if len(runs) > 1 or runs[0][0] != ".":
            lines.append(f"{y:3} " + " ".join(f"{name}{length}" for name, length in runs))
    legend = [f"{name:>3} {style}" for style, name in sorted(names.items(), key=lambda item: item[1])]
    return "\n".join(lines + legend) + "\n"


def _name(style: str) -> str:
    number, letters = zlib.crc32(style.encode()), ""
    for _ in range(3):
        number, rest = divmod(number, 26)
        letters += chr(ord("a") + rest)
    return letters
