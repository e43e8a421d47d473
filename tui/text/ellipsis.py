"""Shortens text to a number of terminal cells."""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size


def clip(text: str, width: int) -> str:
    """Return ``text`` in at most ``width`` cells; if it is cut, it ends with an ellipsis."""
    return text if cell_len(text) <= width else set_cell_size(text, max(width - 1, 0)) + "…"


def clip_middle(text: str, width: int) -> str:
    """Return ``text`` in at most ``width`` cells, cut in the middle: similar run names often differ at the end."""
    if cell_len(text) <= width:
        return text
    if width < 8:
        return set_cell_size(text, max(width - 1, 0)) + "…"
    tail = (width - 1) // 2
    end = text
    while cell_len(end) > tail:
        end = end[1:]
    return set_cell_size(text, width - 1 - cell_len(end)) + "…" + end
