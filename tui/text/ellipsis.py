"""Fits text into a number of terminal cells: shortened, or wrapped into lines."""

from __future__ import annotations

from rich.cells import cell_len, chop_cells, set_cell_size


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


def wrap(text: str, width: int) -> list[str]:
    """Return ``text`` as lines of at most ``width`` cells, broken between words; a longer word is broken inside."""
    lines = [""]
    for word in text.split():
        if lines[-1] and cell_len(lines[-1]) + 1 + cell_len(word) <= width:
            lines[-1] += f" {word}"
            continue
        first, *rest = chop_cells(word, max(width, 1)) or [""]
        lines[-1:] = [first] if not lines[-1] else [lines[-1], first]
        lines += rest
    return lines


def wrap_clipped(text: str, width: int, lines: int) -> list[str]:
    """Return the first ``lines`` lines of ``text``, wrapped; if there are more, the last ends with an ellipsis."""
    wrapped = wrap(text, width)
    return wrapped if len(wrapped) <= lines else [*wrapped[: lines - 1], clip(" ".join(wrapped[lines - 1 :]), width)]
