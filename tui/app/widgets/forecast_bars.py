"""Memory as bars: what a run would need on device and host, by part, against what the machine has."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len

from tui.app.widgets.canvas import Canvas, Row
from tui.text import format as fmt
from tui.text.ellipsis import clip

if TYPE_CHECKING:
    from engine.memory.headroom import Headroom

# Shades as well as colours: without colour the parts still differ.
_SHADES = "█▓▒░"
_COLOURS = 6
_DEVICE_NAMES = {"cuda": "GPU", "mlx": "unified memory", "cpu": "no GPU"}


def _look(index: int) -> tuple[str, str]:
    return _SHADES[index % len(_SHADES)], f"forecast--part{index % _COLOURS}"


class ForecastBars(Canvas):
    """Up to three lines for each memory: how much of what is free, a stacked bar, what the parts are."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *("forecast--title", "forecast--note", "forecast--over", "forecast--tight", "forecast--free"),
        *(f"forecast--part{i}" for i in range(_COLOURS)),
    }

    def __init__(self, free: str = "free", *, id: str | None = None) -> None:
        """``free`` is what a person calls the memory that can be had."""
        super().__init__(id=id)
        self._free = free
        self._rooms: list[Headroom] = []
        self._device = ""
        self._stale = False

    def show(self, places: list[Headroom], device: str = "") -> None:
        """``places`` as ``headroom.rooms`` gives them; ``device`` as ``Hardware`` names it, where known."""
        self._rooms, self._device, self._stale = places, _DEVICE_NAMES.get(device, device), False
        self.redraw()

    def mark_stale(self) -> None:
        """The form holds a mistake: what stands here is the last forecast that made sense."""
        self._stale = True
        self.redraw()

    def draw(self, width: int, height: int) -> list[Row]:
        if not self._rooms:
            return [[(" looking at this machine …", "forecast--note")]]
        # What a memory cannot do without: its title and bar; the parts are told in what room is left.
        legend = max(height // len(self._rooms) - 2, 0)
        return [row for place in self._rooms for row in self._place(place, width, legend)]

    def _place(self, place: Headroom, width: int, legend: int) -> list[Row]:
        held = sorted(((part, amount) for part, amount in place.parts.items() if amount > 0), key=lambda p: -p[1])
        device = f"device · {self._device}" if self._device else "device"
        name = {"host": "host · RAM", "device": device}.get(place.memory, place.memory)
        needed = fmt.size_of(place.needed, place.free) if place.free else fmt.size(place.needed)
        title: Row = [(f" {name}  {needed}", "forecast--note" if self._stale else "forecast--title")]
        if place.free is None:
            title.append(("  not on this machine", "forecast--note"))
        else:
            title.append((f" {self._free}", "forecast--note"))
            if place.state == "over":
                title.append((f"  {fmt.size(place.needed - place.free)} too much", "forecast--over"))
            elif place.state == "tight":
                title.append(("  tight", "forecast--tight"))
        amounts = [amount for _, amount in held]
        return [title, _bar(amounts, place.free or place.needed, width - 2), *_legend(held, width, legend)]


def _bar(amounts: list[int], capacity: int, cells: int) -> Row:
    needed = sum(amounts)
    whole = max(needed, capacity, 1)
    row: Row = [(" ", "")]
    done, at = 0, 0
    for index, amount in enumerate(amounts):
        done += amount
        end = round(done / whole * cells)
        shade, style = _look(index)
        row.append((shade * (end - at), style))
        at = end
    limit = round(capacity / whole * cells)
    row.append(("·" * (cells - at), "forecast--free"))
    if needed > capacity and 0 < limit < cells:
        row = _with_limit(row, 1 + limit)
    return row


def _with_limit(row: Row, at: int) -> Row:
    """Put a mark where the capacity ends inside an overflowing bar."""
    cells = [(char, style) for text, style in row for char in text]
    cells[at] = ("┃", "forecast--over")
    return list(cells)


def _legend(held: list[tuple[str, int]], width: int, lines: int) -> list[Row]:
    """As many parts as fit into ``lines`` lines, the largest first."""
    rows: list[Row] = []
    row: Row = []
    used = 0
    for index, (part, amount) in enumerate(held):
        shade, style = _look(index)
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
