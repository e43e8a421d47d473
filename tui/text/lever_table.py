"""The ways to make a run smaller as lines of a table, for ``mla-tui plan`` and the tuning drawer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tui.text.ellipsis import clip
from tui.text.format import size

if TYPE_CHECKING:
    from engine.memory.levers import Lever


WIDEST = 100  # beyond that the eye loses the line between a way and what it costs


def heading(title: str, places: Sequence[str], width: int, applies: str = "applies") -> str:
    """The line above them; ``places`` are the memories that the run needs: device and host, or one.

    ``applies`` heads the column that says when a way can be applied; empty where that is no question.
    """
    return _row(title, places, "tokens/s", applies, width)


def lines(way: Lever, places: Sequence[str], width: int) -> list[str]:
    """What the way changes, saves and costs, and below it what becomes of the arithmetic, where that does not stay."""
    return [line(way, places, width, way.when), *([f"    {way.note}"] if way.note else [])]


def line(way: Lever, places: Sequence[str], width: int, when: str) -> str:
    saved = {"device": way.device_saved, "host": way.host_saved}
    amounts = [saved.get(place, way.device_saved + way.host_saved) for place in places]
    told = [f"{'−' if amount > 0 else '+'}{size(abs(amount))}" if amount else "" for amount in amounts]
    speed = f"{way.speed:+.1%}".replace("-", "−") if abs(way.speed) >= 0.0005 else "0.0%"
    return _row(f"  {way.change}", told, speed, when, width)


def _row(first: str, amounts: Sequence[str], speed: str, when: str, width: int) -> str:
    last = "".join(f"{amount:>10}" for amount in amounts) + f"{speed:>10}" + (f"{when:>8}" if when else "")
    room = max(min(width, WIDEST) - len(last), 12)
    return f"{clip(first, room):<{room}}{last}"
