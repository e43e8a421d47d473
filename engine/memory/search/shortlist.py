"""Shortlists the ways to run a spec that are worth measuring: its own, and those that are predicted fastest."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from engine.memory.headroom import OVER
from engine.memory.search.micro import micro_divisors, with_micro
from engine.memory.search.search import Candidate, Search
from profiles.spec import RunSpec

_WITH_SMALLER = 3  # of the fastest: a smaller micro-batch may suit the caches better, which no prediction knows
_SMALLER = 2  # micro-batches below the largest


def shortlist(spec: RunSpec, search: Search, count: int, given: Collection[str] = ()) -> list[Candidate]:
    """Return at most ``count`` ways to run ``spec``: first what it runs as by itself, then the fastest predicted.

    None of them needs more than is free, or what "auto" may not choose; the first may, where nothing else is left.
    Empty where the spec contradicts itself. The settings ``given`` (dotted keys) are the same in all.
    """
    own = search.chosen_from(spec)[:1]
    pool = [
        one
        for one in _ways(spec, search)
        if one.state != OVER and not one.forbidden and all(_value(one, key) == _value(own[0], key) for key in given)
    ]
    found = {(one.combination, one.spec.batch.micro): one for one in [*own, *search.rank(pool)]}
    return list(found.values())[:count]


def _ways(spec: RunSpec, search: Search) -> Iterator[Candidate]:
    """Yield every combination at its largest micro-batch, and the best of them at smaller ones."""
    ways = search.all_ways(spec)
    yield from ways
    for way in ways[:_WITH_SMALLER]:
        smaller = [n for n in micro_divisors(spec) if n < way.spec.batch.micro]
        for micro in smaller[-_SMALLER:]:
            yield search.candidate(with_micro(spec, micro), way.combination)


def _value(way: Candidate, key: str) -> object:
    table, _, name = key.partition(".")
    return getattr(getattr(way.spec, table), name, None)
