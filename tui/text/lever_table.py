"""Formats changes that make a run faster or smaller as a table, for ``plan``, the form and the tuning drawer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tui.text.ellipsis import clip
from tui.text.format import size

if TYPE_CHECKING:
    from engine.memory.search.levers import Lever


MAX_WIDTH = 100  # in a wider table the eye loses the line from a lever to its cost
_LEAST = 12  # cells of the change itself


def heading(title: str, memories: Sequence[str], width: int, applies: str = "applies") -> str:
    """Return the heading; ``memories`` are those that the run uses: device and host, or one of them.

    ``applies`` is the heading of the column that says when a lever can be applied; empty to omit that column.
    """
    return _row(title, memories, "tokens/s", applies, width)


def lines(lever: Lever, memories: Sequence[str], width: int) -> list[str]:
    """Return the change, savings and cost of a lever, and on a second line how it changes the arithmetic of a step."""
    return [line(lever, memories, width, lever.when), *([f"    {lever.note}"] if lever.note else [])]


def line(lever: Lever, memories: Sequence[str], width: int, when: str) -> str:
    saved = {"device": lever.device_saved, "host": lever.host_saved}
    amounts = [saved.get(memory, lever.device_saved + lever.host_saved) for memory in memories]
    savings = [f"{'−' if amount > 0 else '+'}{size(abs(amount))}" if amount else "" for amount in amounts]
    speed = f"{lever.speed:+.1%}".replace("-", "−") if abs(lever.speed) >= 0.0005 else "0.0%"
    return _row(f"  {lever.change}", savings, speed, when, width)


def _row(first: str, amounts: Sequence[str], speed: str, when: str, width: int) -> str:
    """Return a line; columns that leave no room for the first one are left out, so that no number is cut."""
    columns = [*(f"{amount:>10}" for amount in amounts), f"{speed:>10}", *([f"{when:>8}"] if when else [])]
    space = min(width, MAX_WIDTH) - sum(map(len, columns))
    while columns and space < _LEAST:
        space += len(columns.pop())
    return f"{clip(first, space):<{space}}{''.join(columns)}"
