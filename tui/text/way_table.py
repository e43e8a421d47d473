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
# What the values of a profile say by themselves, where no key stands beside them.
_STRATEGIES = {"device": "on the device", "states8bit": "8-bit states", "offload": "offloaded"}
_CHECKPOINTING = {
    "none": "no checkpointing",
    "selective": "selective checkpointing",
    "full": "full checkpointing",
    "offload": "offloaded checkpointing",
}
_NAMES = {"memory.strategy": _STRATEGIES, "memory.checkpointing": _CHECKPOINTING}


def chosen(spec: RunSpec, open_keys: Sequence[str]) -> str:
    """Return what was chosen for the keys that the profile leaves open, or ""."""
    if not open_keys:
        return ""
    values = _values(spec)
    found = ", ".join(f"{key} = {values[key].removeprefix('micro ')}" for key in open_keys if values[key] != "auto")
    return f"chosen for this machine: {found}" if found else ""


def chosen_briefly(spec: RunSpec, open_keys: Sequence[str]) -> str:
    """Return the same in few words: ``auto: 8-bit states, selective checkpointing, bf16_sr, micro 2``."""
    values = [(key, value) for key, value in _values(spec).items() if key in open_keys and value != "auto"]
    found = [_NAMES.get(key, {}).get(value, value) for key, value in values]
    return f"auto: {', '.join(found)}" if found else ""


def _values(spec: RunSpec) -> dict[str, str]:
    return {
        "memory.strategy": spec.memory.strategy,
        "memory.checkpointing": spec.memory.checkpointing,
        "train.precision": spec.train.precision,
        "batch.micro": f"micro {spec.batch.micro}",
    }


def describe(way: Candidate) -> str:
    """Return ``micro 2, 8-bit states, selective checkpointing, bf16_sr``."""
    return f"{_briefly(way)}, {_numbers(way)}"


def _briefly(way: Candidate) -> str:
    one = way.combination
    strategy, checkpointing = _STRATEGIES[one.strategy], _CHECKPOINTING[one.checkpointing]
    return f"micro {way.spec.batch.micro}, {strategy}, {checkpointing}"


def _numbers(way: Candidate) -> str:
    """Return the precision, and the implementation of the loss where it is not the usual one."""
    one = way.combination
    return f"{one.precision}, plain loss" if one.loss == "plain" else one.precision


def lines(ways: Sequence[Candidate], lost: Sequence[str], memories: Sequence[str], width: int) -> list[str]:
    """Return the table, two lines a way: what it takes, then its precision and why it lost."""
    shown = [way for way in ways if way.state != "over"][: _MOST - _UNFIT]
    shown += [way for way in ways if way.state == "over"][: _MOST - len(shown)]
    found = [_row("ways to run it, best first", list(memories), "tokens/s", width)]
    for way, why in zip(ways, lost, strict=True):
        if way not in shown:
            continue
        totals = {"device": way.forecast.device_total, "host": way.forecast.host_total}
        amounts = [size(totals.get(memory, sum(totals.values()))) for memory in memories]
        found.append(_row(f"  {_briefly(way)}", amounts, count(way.rate.tok_s), width))
        notes = "; ".join(filter(None, (_numbers(way), why, *way.combination.numerics)))
        found.append(clip(f"    {notes}", width))
    hidden = len(ways) - len(shown)
    return [*found, *([f"  and {hidden} more, which --json lists"] if hidden else [])]


def _row(first: str, amounts: Sequence[str], speed: str, width: int) -> str:
    last = "".join(f"{amount:>10}" for amount in amounts) + f"{speed:>10}"
    space = max(min(width, MAX_WIDTH) - len(last), 12)
    return f"{clip(first, space):<{space}}{last}"
