"""Filters and sorts the list of runs."""

from __future__ import annotations

import math
import operator
import re
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
    """Return the runs of a filter for which every word of ``text`` (lower case) holds, sorted.

    A word is ``loss<4`` (with another of ``_NUMBERS``, and any comparison), ``phase:ended`` (a phase, active, ended or
    attention), ``profile:``, ``backend:``, ``host:`` or ``name:`` and how it begins, or letters of the id, name,
    profile or phase.
    """
    tests = [_word_test(word) for word in text.split()]
    found = (run for run in runs if chosen.matches(run) and all(test(run) for test in tests))
    return sorted(found, key=order.sort_key)


_NUMBERS: dict[str, Callable[[Summary], float | None]] = {
    "loss": lambda run: run.loss,
    "val": lambda run: run.val_loss,
    "bits": lambda run: run.bits_per_byte,
    "tok/s": lambda run: run.tok_s,
    "step": lambda run: run.step,
    "done": lambda run: 100 * (run.step or 0) / run.steps if run.steps else None,
    "attempt": lambda run: run.attempt,
    "context": lambda run: run.context,
    "micro": lambda run: run.micro,
}
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
}
_TEXTS: dict[str, Callable[[Summary], str | None]] = {
    "name": lambda run: run.name or run.id,
    "profile": lambda run: run.profile,
    "backend": lambda run: run.backend,
    "host": lambda run: run.host,
}
_COMPARISON = re.compile(r"([a-z/]+)(<=|>=|<|>|=)(.*)")


def _word_test(word: str) -> Callable[[Summary], bool]:
    """Return whether a run is as a word of the filter says. One that is still being typed holds for every run."""
    if (found := _COMPARISON.fullmatch(word)) is not None and found[1] in _NUMBERS:
        number, compare = _NUMBERS[found[1]], _COMPARISONS[found[2]]
        try:
            limit = float(found[3])
        except ValueError:
            return lambda run: not found[3]
        return lambda run: (value := number(run)) is not None and compare(value, limit)
    key, colon, wanted = word.partition(":")
    if colon and key == "phase":
        groups = {title.partition(" ")[2] or title: matches for title, matches in FILTERS[1:]}
        return lambda run: (
            any(matches(run) for title, matches in groups.items() if wanted and title == wanted)
            or (run.phase or "").startswith(wanted)
        )
    if colon and key in _TEXTS:
        return lambda run: (_TEXTS[key](run) or "").lower().startswith(wanted)
    return lambda run: any(word in (shown or "").lower() for shown in (run.id, run.name, run.profile, run.phase))


def _or_last(value: float | None, sign: int = 1) -> float:
    return math.inf if value is None or not math.isfinite(value) else sign * value
