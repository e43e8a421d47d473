"""Which runs a list shows, and in what order."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from engine.events.summary import CUT_OFF, ENDED

Summary = dict[str, Any]
_OVER = (*ENDED, CUT_OFF)


class Which(NamedTuple):
    title: str
    holds: Callable[[Summary], bool]


class Sort(NamedTuple):
    """``key`` is the column it goes by; ``rank`` sorts the first run to the top."""

    key: str
    title: str
    rank: Callable[[Summary], Any]


def in_trouble(run: Summary) -> bool:
    """Failed, cut off, or held until somebody answers."""
    return run.get("phase") in ("failed", CUT_OFF, "recovering") or (
        run.get("phase") == "paused" and str(run.get("reason") or "").startswith("out of memory")
    )


WHICH = (
    Which("all", lambda run: True),
    Which("living", lambda run: run.get("phase") not in _OVER),
    Which("ended", lambda run: run.get("phase") in _OVER),
    Which("in trouble", in_trouble),
)
SORTS = (
    Sort("started", "newest first", lambda run: 0),  # as the store gives them
    Sort("loss", "lowest loss first", lambda run: _or_last(run.get("loss"))),
    Sort("val_loss", "lowest validation first", lambda run: _or_last(run.get("val_loss"))),
    Sort("tok_s", "fastest first", lambda run: _or_last(None if run.get("phase") in _OVER else run.get("tok_s"), -1)),
    Sort("step", "most steps first", lambda run: -(run.get("step") or 0)),
    Sort("name", "by name", lambda run: str(run.get("name") or run.get("id")).lower()),
)


def arranged(runs: list[Summary], text: str, which: Which, sort: Sort) -> list[Summary]:
    """Those of ``which`` with ``text`` (small letters) in id, name, profile or phase, in the order of ``sort``."""
    return sorted((run for run in runs if which.holds(run) and _matches(run, text)), key=sort.rank)


def _or_last(value: float | None, sign: int = 1) -> float:
    return math.inf if value is None or not math.isfinite(value) else sign * value


def _matches(run: Summary, text: str) -> bool:
    return not text or any(text in str(run.get(key) or "").lower() for key in ("id", "name", "profile", "phase"))
