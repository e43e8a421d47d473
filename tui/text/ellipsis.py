"""Names in few cells."""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size


def clip(text: str, width: int) -> str:
    """``text`` in at most ``width`` cells, an ellipsis where something is missing."""
    return text if cell_len(text) <= width else set_cell_size(text, max(width - 1, 0)) + "…"


def clip_middle(text: str, width: int) -> str:
    """``text`` in at most ``width`` cells: of runs named alike it is the end that tells them apart."""
    if cell_len(text) <= width:
        return text
    if width < 8:
        return set_cell_size(text, max(width - 1, 0)) + "…"
    tail = (width - 1) // 2
    end = text
    while cell_len(end) > tail:
        end = end[1:]
    return set_cell_size(text, width - 1 - cell_len(end)) + "…" + end
