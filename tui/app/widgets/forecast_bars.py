"""Draws the memory forecast as stacked bars: the parts a run needs on device and host, and what is available."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len

from tui.app.widgets.canvas import Canvas, Row
from tui.text import format as fmt
from tui.text.ellipsis import clip

if TYPE_CHECKING:
    from engine.memory.headroom import Headroom

# Shades as well as colours, so that the parts differ without colour too.
_SHADES = "█▓▒░"
_COLOURS = 6
_DEVICE_NAMES = {"cuda": "GPU", "mlx": "unified memory", "cpu": "no GPU"}


def _shade_and_style(index: int) -> tuple[str, str]:
    return _SHADES[index % len(_SHADES)], f"forecast--part{index % _COLOURS}"


class ForecastBars(Canvas):
    """Up to three lines per memory: needed and available bytes, a stacked bar, a legend of the parts."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *("forecast--title", "forecast--note", "forecast--over", "forecast--tight", "forecast--free"),
        *(f"forecast--part{i}" for i in range(_COLOURS)),
    }

    def __init__(self, free: str = "free", unknown: str = "not on this machine", *, id: str | None = None) -> None:
        """``free`` is the text after the amount of available memory, ``unknown`` that where none is known."""
        super().__init__(id=id)
        self._free = free
        self._unknown = unknown
        self._headrooms: list[Headroom] = []
        self._device = ""
        self._stale = False

    def show(self, headrooms: list[Headroom], device: str = "") -> None:
        """``device`` is the name in ``Hardware``, if known."""
        self._headrooms, self._device, self._stale = headrooms, _DEVICE_NAMES.get(device, device), False
        self.redraw()

    def mark_stale(self) -> None:
        """Dim the bars until the next ``show``: they are not of what the form says now."""
        self._stale = True
        self.redraw()

    def draw(self, width: int, height: int) -> list[Row]:
        if not self._headrooms:
            return [[(" no forecast" if self._stale else " detecting hardware …", "forecast--note")]]
        # Title and bar of every memory come first; the legends get the remaining lines.
        legend_lines = max(height // len(self._headrooms) - 2, 0)
        rows = [row for headroom in self._headrooms for row in self._rows_of(headroom, width, legend_lines)]
        return [[(text, "forecast--note") for text, _ in row] for row in rows] if self._stale else rows

    def _rows_of(self, headroom: Headroom, width: int, legend_lines: int) -> list[Row]:
        parts = sorted(((part, amount) for part, amount in headroom.parts.items() if amount > 0), key=lambda p: -p[1])
        device = f"device · {self._device}" if self._device else "device"
        name = {"host": "host · RAM", "device": device}.get(headroom.memory, headroom.memory)
        needed = fmt.size_of(headroom.needed, headroom.free) if headroom.free else fmt.size(headroom.needed)
        notes = (
            [f"  {self._unknown}"] if headroom.free is None else [f" {self._free}", f" {self._free.partition(' ')[0]}"]
        )
        state: Row = []
        if headroom.free is not None and headroom.state == "over":
            state = [(f"  {fmt.size(headroom.needed - headroom.free)} over", "forecast--over")]
        elif headroom.state == "tight":
            state = [("  tight", "forecast--tight")]
        # Whole words and numbers: the shorter ones where the longer do not fit.
        titles = [(f" {name}  {needed}", note) for note in (*notes, "")]
        titles += [(f" {name.partition(' ')[0]}  {needed}", ""), (f" {needed}", "")]
        left = width - sum(cell_len(text) for text, _ in state)
        text, note = next((one for one in titles if cell_len("".join(one)) <= left), titles[-1])
        title: Row = [(text, "forecast--title"), (note, "forecast--note"), *state]
        amounts = [amount for _, amount in parts]
        return [title, _bar(amounts, headroom.free or headroom.needed, width - 2), *_legend(parts, width, legend_lines)]


def _bar(amounts: list[int], capacity: int, cells: int) -> Row:
    needed = sum(amounts)
    scale = max(needed, capacity, 1)
    row: Row = [(" ", "")]
    done, start = 0, 0
    for index, amount in enumerate(amounts):
        done += amount
        end = round(done / scale * cells)
        shade, style = _shade_and_style(index)
        row.append((shade * (end - start), style))
        start = end
    limit = round(capacity / scale * cells)
    row.append(("·" * (cells - start), "forecast--free"))
    if needed > capacity and 0 < limit < cells:
        row = _with_limit(row, 1 + limit)
    return row


def _with_limit(row: Row, at: int) -> Row:
    """Mark the capacity inside an overflowing bar."""
    cells = [(char, style) for text, style in row for char in text]
    cells[at] = ("┃", "forecast--over")
    return list(cells)


def _legend(parts: list[tuple[str, int]], width: int, lines: int) -> list[Row]:
    """Return the legend of as many parts as fit into ``lines`` lines, largest first."""
    rows: list[Row] = []
    row: Row = []
    used = 0
    for index, (part, amount) in enumerate(parts):
        shade, style = _shade_and_style(index)
        text = f"{clip(part.replace('_', ' '), 22)} {fmt.size(amount)}"
        needed = cell_len(text) + 4
        if used and used + needed > width:
            rows.append(row)
            row, used = [], 0
        if len(rows) == lines:
            return rows
        row += [(f" {shade} ", style), (text + " ", "forecast--note")]
        used += needed
    return [*rows, row][:lines] if row else rows
