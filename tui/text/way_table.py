"""Formats the ways to run a spec that the search found: what each takes, how fast it is, and why it lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tui.text.ellipsis import clip
from tui.text.format import count, size
from tui.text.lever_table import MAX_WIDTH

if TYPE_CHECKING:
    from engine.memory.search.search import Candidate
    from profiles.spec import RunSpec

_MOST = 8  # lines; the others are in the JSON
_UNFIT = 3  # of them, that do not fit


def chosen(spec: RunSpec, open_keys: Sequence[str]) -> str:
    """Return what was chosen for the keys that the profile leaves open, or ""."""
    if not open_keys:
        return ""
    values = _values(spec)
    found = ", ".join(f"{key} = {values[key].removeprefix('micro ')}" for key in open_keys if values[key] != "auto")
    return f"chosen for this machine: {found}" if found else ""


def chosen_briefly(spec: RunSpec, open_keys: Sequence[str]) -> str:
    """Return the same in few words: ``auto: states8bit, selective, bf16_sr, micro 2``."""
    found = [str(value) for key, value in _values(spec).items() if key in open_keys and value != "auto"]
    return f"auto: {', '.join(found)}" if found else ""


def _values(spec: RunSpec) -> dict[str, str]:
    return {
        "memory.strategy": spec.memory.strategy,
        "memory.checkpointing": spec.memory.checkpointing,
        "train.precision": spec.train.precision,
        "batch.micro": f"micro {spec.batch.micro}",
    }


def describe(way: Candidate) -> str:
    """Return ``states8bit, selective, bf16_sr, micro 2``."""
    one = way.combination
    loss = ", plain loss" if one.loss == "plain" else ""
    return f"{one.strategy}, {one.checkpointing}, {one.precision}{loss}, micro {way.spec.batch.micro}"


def lines(ways: Sequence[Candidate], lost: Sequence[str], memories: Sequence[str], width: int) -> list[str]:
    """Return the table, two lines a way: what it takes, then its numerics and why it lost."""
    shown = [way for way in ways if way.state != "over"][: _MOST - _UNFIT]
    shown += [way for way in ways if way.state == "over"][: _MOST - len(shown)]
    found = [_row("ways to run it, best first", list(memories), "tokens/s", width)]
    for way, why in zip(ways, lost, strict=True):
        if way not in shown:
            continue
        totals = {"device": way.forecast.device_total, "host": way.forecast.host_total}
        amounts = [size(totals.get(memory, sum(totals.values()))) for memory in memories]
        found.append(_row(f"  {describe(way)}", amounts, count(way.rate.tok_s), width))
        if notes := "; ".join(filter(None, (why, *way.combination.numerics))):
            found.append(clip(f"    {notes}", width))
    hidden = len(ways) - len(shown)
    return [*found, *([f"  and {hidden} more, which --json lists"] if hidden else [])]


def _row(first: str, amounts: Sequence[str], speed: str, width: int) -> str:
    last = "".join(f"{amount:>10}" for amount in amounts) + f"{speed:>10}"
    space = max(min(width, MAX_WIDTH) - len(last), 12)
    return f"{clip(first, space):<{space}}{last}"
