"""Filters and sorts the list of runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from engine.events.phases import has_ended, is_active
from engine.events.status import Summary
from tui.app.state.run_filter import Test, needs_attention


class RunFilter(NamedTuple):
    title: str
    matches: Callable[[Summary], bool]


class SortOrder(NamedTuple):
    """``column`` is the sorted column; ``sort_key`` returns the key by which a run is sorted, ascending."""

    column: str
    title: str
    sort_key: Callable[[Summary], Any]


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
        lambda run: _or_last(run.tok_s, -1),
    ),
    SortOrder("step", "most steps first", lambda run: -(run.step or 0)),
    SortOrder("name", "by name", lambda run: (run.name or run.id).lower()),
)


def filter_and_sort(runs: list[Summary], matches: Test, chosen: RunFilter, order: SortOrder) -> list[Summary]:
    """Return the runs of ``chosen`` that match the typed filter, sorted."""
    return sorted((run for run in runs if chosen.matches(run) and matches(run)), key=order.sort_key)


def _or_last(value: float | None, sign: int = 1) -> float:
    return math.inf if value is None or not math.isfinite(value) else sign * value
