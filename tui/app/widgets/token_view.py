"""One sequence of tokens as text: every second token on another ground, so that the boundaries are seen."""

from __future__ import annotations

from typing import ClassVar

from rich.cells import cell_len, chop_cells

from tui.app.actions.action import HasActions
from tui.app.actions.registry import TEXT
from tui.app.widgets.canvas import Canvas, Row
from tui.text.ellipsis import clip

_CELL = 20  # of a token with its number
_ID = 7
_SHOWN = {"\n": "↵", "\t": "→", "\r": "␍"}


class TokenView(HasActions, Canvas, can_focus=True, actions=TEXT):
    """Shows ``ids`` and, where they are known, ``texts``; ``numbers`` puts each id before its text."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"tokens--odd", "tokens--id", "tokens--control", "tokens--note"}

    def __init__(self) -> None:
        super().__init__(id="window")
        self._ids: list[int] = []
        self._texts: list[str] | None = None
        self._numbers = False
        self._first = 0
        self._note = ""
        self._laid: tuple[int, list[Row]] | None = None  # at a width

    def show(self, ids: list[int], texts: list[str] | None, note: str = "") -> None:
        """Another window, from its beginning; ``note`` stands where there is none."""
        self._ids, self._texts, self._note, self._first, self._laid = ids, texts, note, 0, None
        self.redraw()

    def toggle_numbers(self) -> None:
        self._numbers, self._first, self._laid = not self._numbers, 0, None
        self.redraw()

    def action_scroll_lines(self, by: int) -> None:
        self._first += by
        self.redraw()

    def on_mouse_scroll_down(self) -> None:
        self.action_scroll_lines(1)

    def on_mouse_scroll_up(self) -> None:
        self.action_scroll_lines(-1)

    def draw(self, width: int, height: int) -> list[Row]:
        if not self._ids:
            return [[(line, "tokens--note")] for line in self._note.splitlines()]
        if self._laid is None or self._laid[0] != width:
            with_numbers = self._numbers or self._texts is None
            self._laid = width, self._table(width) if with_numbers else self._flow(width)
        rows = self._laid[1]
        self._first = max(0, min(self._first, len(rows) - height))
        return rows[self._first : self._first + height]

    def _table(self, width: int) -> list[Row]:
        """Ids with their texts, as many a line as fit."""
        across = max(width // _CELL, 1)
        cells: list[Row] = []
        for i, id in enumerate(self._ids):
            text = "" if self._texts is None else clip(_visible(self._texts[i]), _CELL - _ID - 2)
            style = "tokens--odd" if i % 2 else ""
            pad = " " * (_CELL - _ID - 1 - cell_len(text))
            cells.append([(f"{id:>{_ID}} ", "tokens--id"), (text, style), (pad, "")])
        lines = (cells[i : i + across] for i in range(0, len(cells), across))
        return [[span for cell in line for span in cell] for line in lines]

    def _flow(self, width: int) -> list[Row]:
        """Texts one after the other; a newline is shown and made."""
        rows: list[Row] = [[]]
        used = 0
        for i, text in enumerate(self._texts or ()):
            ground = "tokens--odd" if i % 2 else ""
            for part, breaks in _lines(text):
                while part:
                    head = chop_cells(part, max(width - used, 2))[0] if used < width else ""
                    if not head:
                        rows.append([])
                        used = 0
                        continue
                    rows[-1].append((head, ground))
                    part, used = part[len(head) :], used + cell_len(head)
                if breaks:
                    rows[-1].append(("↵", f"{ground} tokens--control".strip()))
                    rows.append([])
                    used = 0
        return rows


def _lines(text: str) -> list[tuple[str, bool]]:
    """The lines of a token, and whether each ends in a newline."""
    parts = text.expandtabs(4).replace("\r", _SHOWN["\r"]).split("\n")
    return [(part, i < len(parts) - 1) for i, part in enumerate(parts)]


def _visible(text: str) -> str:
    return "".join(_SHOWN.get(char, char) for char in text)
