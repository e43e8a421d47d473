"""Tells quickly whether each character of a text takes one cell of a terminal."""

from __future__ import annotations

import re

# Of what a chart and its labels are drawn with: Latin letters, dashes, arrows, mathematics, boxes, blocks and braille.
_NARROW = re.compile(
    "[ -~\u00a1-\u00ac\u00ae-\u02ff\u2010-\u2027\u2030-\u205e\u2190-\u2319\u2500-\u25fc\u2800-\u28ff]*"
)


def is_narrow(text: str) -> bool:
    """Return whether every character of printable ``text`` takes one cell; False also where that is not known."""
    return text.isascii() or _NARROW.fullmatch(text) is not None
