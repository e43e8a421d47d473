"""Shows one sequence of tokens as text; every second token has another backstyle, so that boundaries are visible."""

from __future__ import annotations

from typing import ClassVar

from rich.cells import cell_len, chop_cells

from tui.app.actions.action import HasActions
from tui.app.actions.registry import TEXT
from tui.app.widgets.canvas import Canvas, Row
from tui.text.ellipsis import clip

_CELL = 20  # width of a token with its id
_ID = 7  # width of an id
_CONTROL_SYMBOLS = {"\n": "↵", "\t": "→", "\r": "␍"}


class TokenView(HasActions, Canvas, can_focus=True, actions=TEXT):
    """Shows the texts of tokens, or each id with its text."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"tokens--odd", "tokens--id", "tokens--control", "tokens--note"}

    def __init__(self) -> None:
        super().__init__(id="tokens")
        self._ids: list[int] = []
        self._texts: list[str] | None = None
        self._show_ids = False
        self._top = 0
        self._note = ""
        self._layout: tuple[int, list[Row]] | None = None  # width, rows

    def show(self, ids: list[int], texts: list[str] | None, note: str = "") -> None:
        """Show another sequence from its beginning, or ``note`` if it is empty."""
        self._ids, self._texts, self._note, self._top, self._layout = ids, texts, note, 0, None
        self.redraw()

    def toggle_ids(self) -> None:
        self._show_ids, self._top, self._layout = not self._show_ids, 0, None
        self.redraw()

    def action_scroll_lines(self, by: int) -> None:
        self._top += by
        self.redraw()

    def on_mouse_scroll_down(self) -> None:
        self.action_scroll_lines(1)

    def on_mouse_scroll_up(self) -> None:
        self.action_scroll_lines(-1)

    def draw(self, width: int, height: int) -> list[Row]:
        if not self._ids:
            return [[(line, "tokens--note")] for line in self._note.splitlines()]
        if self._layout is None or self._layout[0] != width:
            show_ids = self._show_ids or self._texts is None
            self._layout = width, self._table(width) if show_ids else self._flow(width)
        rows = self._layout[1]
        self._top = max(0, min(self._top, len(rows) - height))
        return rows[self._top : self._top + height]

    def _table(self, width: int) -> list[Row]:
        """Return ids with their texts, as many per line as fit."""
        per_line = max(width // _CELL, 1)
        cells: list[Row] = []
        for i, id in enumerate(self._ids):
            text = "" if self._texts is None else clip(_visible(self._texts[i]), _CELL - _ID - 2)
            style = "tokens--odd" if i % 2 else ""
            pad = " " * (_CELL - _ID - 1 - cell_len(text))
            cells.append([(f"{id:>{_ID}} ", "tokens--id"), (text, style), (pad, "")])
        lines = (cells[i : i + per_line] for i in range(0, len(cells), per_line))
        return [[span for cell in line for span in cell] for line in lines]

    def _flow(self, width: int) -> list[Row]:
        """Return the texts as running text; a newline is shown as a symbol and breaks the line."""
        rows: list[Row] = [[]]
        used = 0
        for i, text in enumerate(self._texts or ()):
            style = "tokens--odd" if i % 2 else ""
            for part, breaks in _lines(text):
                while part:
                    head = chop_cells(part, max(width - used, 2))[0] if used < width else ""
                    if not head:
                        rows.append([])
                        used = 0
                        continue
                    rows[-1].append((head, style))
                    part, used = part[len(head) :], used + cell_len(head)
                if breaks:
                    rows[-1].append(("↵", f"{style} tokens--control".strip()))
                    rows.append([])
                    used = 0
        return rows


def _lines(text: str) -> list[tuple[str, bool]]:
    """Return the lines of a token, and whether each ends in a newline."""
    parts = text.expandtabs(4).replace("\r", _CONTROL_SYMBOLS["\r"]).split("\n")
    return [(part, i < len(parts) - 1) for i, part in enumerate(parts)]


def _visible(text: str) -> str:
    return "".join(_CONTROL_SYMBOLS.get(char, char) for char in text)
