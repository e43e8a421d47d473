"""RunFilter runs a list shows, and in what order."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from engine.events.summary import CUT_OFF, INACTIVE

Summary = dict[str, Any]


class RunFilter(NamedTuple):
    title: str
    matches: Callable[[Summary], bool]


class SortOrder(NamedTuple):
    """``column`` is the column it goes by; ``sort_key`` sorts the first run to the top."""

    column: str
    title: str
    sort_key: Callable[[Summary], Any]


def needs_attention(run: Summary) -> bool:
    """Failed, cut off, or held until somebody answers."""
    return run.get("phase") in ("failed", CUT_OFF, "recovering") or (
        run.get("phase") == "paused" and str(run.get("reason") or "").startswith("out of memory")
    )


FILTERS = (
    RunFilter("all", lambda run: True),
    RunFilter("living", lambda run: run.get("phase") not in INACTIVE),
    RunFilter("ended", lambda run: run.get("phase") in INACTIVE),
    RunFilter("in trouble", needs_attention),
)
SORT_ORDERS = (
    SortOrder("started", "newest first", lambda run: 0),  # as the store gives them
    SortOrder("loss", "lowest loss first", lambda run: _or_last(run.get("loss"))),
    SortOrder("val_loss", "lowest validation first", lambda run: _or_last(run.get("val_loss"))),
    SortOrder(
        "tok_s",
        "fastest first",
        lambda run: _or_last(None if run.get("phase") in INACTIVE else run.get("tok_s"), -1),
    ),
    SortOrder("step", "most steps first", lambda run: -(run.get("step") or 0)),
    SortOrder("name", "by name", lambda run: str(run.get("name") or run.get("id")).lower()),
)


def filter_and_sort(runs: list[Summary], text: str, which: RunFilter, sort: SortOrder) -> list[Summary]:
    """Those of ``which`` with ``text`` (small letters) in id, name, profile or phase, in the order of ``sort``."""
    return sorted((run for run in runs if which.matches(run) and _matches(run, text)), key=sort.sort_key)


def _or_last(value: float | None, sign: int = 1) -> float:
    return math.inf if value is None or not math.isfinite(value) else sign * value


def _matches(run: Summary, text: str) -> bool:
    return not text or any(text in str(run.get(key) or "").lower() for key in ("id", "name", "profile", "phase"))
