"""The ways to make a run smaller as lines of a table, for ``mla-tui plan`` and the tuning drawer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tui.format import size
from tui.widgets.canvas import clip

if TYPE_CHECKING:
    from engine.memory.levers import Lever


def heading(title: str, places: Sequence[str], width: int) -> str:
    """The line above them; ``places`` are the memories that the run needs: device and host, or one."""
    return _row(title, places, "tokens/s", "applies", width)


def lines(way: Lever, places: Sequence[str], width: int) -> list[str]:
    """What the way changes, saves and costs, and below it what becomes of the arithmetic, where that does not stay."""
    return [line(way, places, width), *([f"    {way.note}"] if way.note else [])]


def line(way: Lever, places: Sequence[str], width: int) -> str:
    saved = {"device": way.device, "host": way.host}
    amounts = [saved[place] if len(places) > 1 else way.device + way.host for place in places]
    told = [f"{'−' if amount > 0 else '+'}{size(abs(amount))}" if amount else "" for amount in amounts]
    return _row(f"  {way.change}", told, f"{way.speed:+.1%}".replace("-", "−"), way.when, width)


def _row(first: str, amounts: Sequence[str], speed: str, when: str, width: int) -> str:
    last = "".join(f"{amount:>10}" for amount in amounts) + f"{speed:>10}{when:>8}"
    room = max(width - len(last), 12)
    return f"{clip(first, room):<{room}}{last}"
