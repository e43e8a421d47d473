"""Memory as bars: what a run would need on device and host, by part, against what the machine has."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len

from tui import format as words
from tui.widgets.canvas import Canvas, Row, clip

if TYPE_CHECKING:
    from engine.memory.forecast import Forecast
    from engine.memory.hardware import Hardware

# Shades as well as colours: without colour the parts still differ.
_SHADES = "█▓▒░"
_COLOURS = 6
_DEVICE_NAMES = {"cuda": "GPU", "mlx": "unified memory", "cpu": "no GPU"}


def _look(index: int) -> tuple[str, str]:
    return _SHADES[index % len(_SHADES)], f"forecast--part{index % _COLOURS}"


def verdict(forecast: Forecast, hardware: Hardware) -> tuple[str, bool]:
    """One line for a person, and whether it fits: ``device 9.1 of 15.9 GiB, host 18.2 of 24.0 GiB``."""
    facts, fits = [], True
    for name, needed, capacity in (
        ("device", forecast.device_total, hardware.device_total),
        ("host", forecast.host_total, hardware.ram_total),
    ):
        if not needed:
            continue
        fact = f"{name} {words.size(needed)}"
        if capacity:
            fact += f" of {words.size(capacity)}"
            fits = fits and needed <= capacity
        facts.append(fact)
    return ", ".join(facts), fits


class ForecastBars(Canvas):
    """Three lines for each place that holds something: how much, a stacked bar, what the parts are."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *("forecast--title", "forecast--note", "forecast--over", "forecast--free"),
        *(f"forecast--part{i}" for i in range(_COLOURS)),
    }

    def __init__(self) -> None:
        super().__init__()
        self._forecast: Forecast | None = None
        self._hardware: Hardware | None = None
        self._stale = False

    def show(self, forecast: Forecast, hardware: Hardware) -> None:
        self._forecast, self._hardware, self._stale = forecast, hardware, False
        self.redraw()

    def fade(self) -> None:
        """The form holds a mistake: what stands here is the last forecast that made sense."""
        self._stale = True
        self.redraw()

    def draw(self, width: int, height: int) -> list[Row]:
        if self._forecast is None or self._hardware is None:
            return [[(" looking at this machine …", "forecast--note")]]
        forecast, hardware = self._forecast, self._hardware
        device = _DEVICE_NAMES.get(hardware.device, hardware.device)
        # What a place cannot do without: its title and bar; the parts are told in what room is left.
        places: list[tuple[str, dict[str, int], int | None]] = [("host · RAM", forecast.host, hardware.ram_total)]
        if forecast.device or hardware.device_total:
            places.insert(0, (f"device · {device}", forecast.device, hardware.device_total))
        room = max(height // len(places) - 2, 0)
        rows: list[Row] = []
        for name, parts, capacity in places:
            rows += self._place(name, parts, capacity, width, room)
        return rows

    def _place(self, name: str, parts: dict[str, int], capacity: int | None, width: int, room: int) -> list[Row]:
        held = sorted(((part, amount) for part, amount in parts.items() if amount > 0), key=lambda p: -p[1])
        needed = sum(amount for _, amount in held)
        text = f" {name}  {words.size_of(needed, capacity) if capacity else words.size(needed)}"
        title: Row = [(text, "forecast--note" if self._stale else "forecast--title")]
        if capacity and needed > capacity:
            title.append((f"  {words.size(needed - capacity)} too much", "forecast--over"))
        elif not capacity:
            title.append(("  not on this machine", "forecast--note"))
        return [
            title,
            self._bar([amount for _, amount in held], capacity or needed, width - 2),
            *_legend(held, width, room),
        ]

    def _bar(self, amounts: list[int], capacity: int, cells: int) -> Row:
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
        text = f"{clip(part.replace('_', ' '), 22)} {words.size(amount)}"
        needed = cell_len(text) + 4
        if used and used + needed > width:
            rows.append(row)
            row, used = [], 0
        if len(rows) == lines:
            return rows
        row += [(f" {shade} ", style), (text + " ", "forecast--note")]
        used += needed
    return [*rows, row][:lines] if row else rows
