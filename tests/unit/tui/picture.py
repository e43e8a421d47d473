"""A screen as text that reads well in a diff.

First what stands there, line by line; then, for each line, its runs of style: ``3 abc12 def7 .61`` is line 3, twelve
cells of style ``abc``, seven of ``def``, 61 of the most usual. The styles are spelt out below; their names come from
what they are, so a new one renames no other. Last the same under NO_COLOR, where the text must not differ.
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
"""A character (empty in the second half of a wide one) and the style it has."""


def cells(app: App[Any]) -> list[list[Cell]]:
    """What stands on the screen of ``app``; only the compositor has it as a whole."""
    return [_cells(strip) for strip in app.screen._compositor.render_strips()]


def _cells(strip: Strip) -> list[Cell]:
    row: list[Cell] = []
    for segment in strip:
        style = _spelt(segment.style or Style())
        for char in segment.text:
            row += [(char, style)] + [("", style)] * (cell_len(char) - 1)
    return row


def _spelt(style: Style) -> str:
    """``bold #e0e0e0 on #1e1e1e``, from what is seen of a style: not its links, nor the events of a click."""
    words = [name for name in ("bold", "dim", "italic", "underline", "reverse", "strike") if getattr(style, name)]
    if style.color is not None:
        words.append(style.color.get_truecolor().hex if not style.color.is_default else "default")
    if style.bgcolor is not None and not style.bgcolor.is_default:
        words.append(f"on {style.bgcolor.get_truecolor().hex}")
    return " ".join(words) or "plain"


def text(screen: list[list[Cell]]) -> str:
    return "\n".join("".join(char for char, _ in row).rstrip() for row in screen) + "\n"


def styles(screen: list[list[Cell]]) -> str:
    """The runs of style of each line, and what their names mean."""
    counted: dict[str, int] = {}
    for row in screen:
        for _, style in row:
            counted[style] = counted.get(style, 0) + 1
    usual = max(counted, key=lambda style: counted[style])
    names = {style: "." if style == usual else _name(style) for style in counted}
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
