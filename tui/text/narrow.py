"""Tells quickly whether each character of a text takes one cell of a terminal, and of others how many cells."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rich.cells import cell_len

# Of what a chart and its labels are drawn with: Latin letters, dashes, arrows, mathematics, boxes, blocks and braille.
_NARROW = re.compile(
    "[ -~\u00a1-\u00ac\u00ae-\u02ff\u2010-\u2027\u2030-\u205e\u2190-\u2319\u2500-\u25fc\u2800-\u28ff]*"
)


def is_narrow(text: str) -> bool:
    """Return whether every character of printable ``text`` takes one cell; False also where that is not known."""
    return text.isascii() or _NARROW.fullmatch(text) is not None


def graphemes(text: str) -> Iterator[tuple[str, int]]:
    """Yield what a terminal draws as one, a letter with its accents for example, and the cells that it takes."""
    drawn = ""
    for char in text:
        if drawn and not cell_len(char):
            drawn += char
            continue
        if drawn:
            yield drawn, cell_len(drawn)
        drawn = char
    if drawn:
        yield drawn, cell_len(drawn)
