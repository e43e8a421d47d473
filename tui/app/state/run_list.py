"""Filters and sorts the list of runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from engine.events.phases import PAUSED, has_ended, is_active, phase_of
from engine.events.status import Summary


class RunFilter(NamedTuple):
    title: str
    matches: Callable[[Summary], bool]


class SortOrder(NamedTuple):
    """``column`` is the sorted column; ``sort_key`` returns the key by which a run is sorted, ascending."""

    column: str
    title: str
    sort_key: Callable[[Summary], Any]


def needs_attention(run: Summary) -> bool:
    """Return whether a run failed, was cut off, or is paused until a user answers."""
    phase, reason = run.phase, run.reason or ""
    return phase_of(phase).needs_attention or (phase == PAUSED and reason.startswith("out of memory"))


FILTERS = (
    RunFilter("all", lambda run: True),
    RunFilter("active", lambda run: is_active(run.phase)),
    RunFilter("ended", lambda run: has_ended(run.phase)),
    RunFilter("needs attention", needs_attention),
)
SORT_ORDERS = (
    SortOrder("started", "newest first", lambda run: 0),  # the order of the store
    SortOrder("loss", "lowest loss first", lambda run: _or_last(run.loss)),
    SortOrder("val_loss", "lowest validation first", lambda run: _or_last(run.val_loss)),
    SortOrder(
        "tok_s",
        "fastest first",
        lambda run: _or_last(run.tok_s if is_active(run.phase) else None, -1),
    ),
    SortOrder("step", "most steps first", lambda run: -(run.step or 0)),
    SortOrder("name", "by name", lambda run: (run.name or run.id).lower()),
)


def filter_and_sort(runs: list[Summary], text: str, chosen: RunFilter, order: SortOrder) -> list[Summary]:
    """Return the runs of a filter with ``text`` (lower case) in id, name, profile or phase, sorted."""
    return sorted((run for run in runs if chosen.matches(run) and _matches(run, text)), key=order.sort_key)


def _or_last(value: float | None, sign: int = 1) -> float:
    return math.inf if value is None or not math.isfinite(value) else sign * value


def _matches(run: Summary, text: str) -> bool:
    return not text or any(text in (shown or "").lower() for shown in (run.id, run.name, run.profile, run.phase))
