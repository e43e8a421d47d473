"""Finds the sequences that follow a cursor in the shards of one or several sources: a pure function.

Each source goes through its own epochs (``data/order.py``); which source is next is up to the weights
(``data/mixture.py``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from data import order
from data.cursor import Cursor, Place
from data.mixture import divide, shares
from profiles.errors import UserError


@dataclass(frozen=True, slots=True)
class Location:
    """Where a sequence lies: number of the source, number of its shard, offset there in tokens; and when it comes."""

    source: int
    shard: int
    offset: int
    epoch: int
    position: int


class Sequences:
    """The windows of several sources at one context length.

    ``names``: of the sources; one that is alone has none (""), and then the cursor itself is its place.
    """

    def __init__(
        self, names: Sequence[str], weights: Sequence[float], tokens: Sequence[Sequence[int]], context: int
    ) -> None:
        self.names = tuple(names)
        self.context = context
        self._shares = shares(weights)
        self._ends = [order.window_ends(counts, context) for counts in tokens]

    @property
    def counts(self) -> list[int]:
        """Windows in one epoch of each source."""
        return [ends[-1] if ends else 0 for ends in self._ends]

    @property
    def total(self) -> int:
        """Windows in one epoch of all sources."""
        return sum(self.counts)

    def start(self, seed: int) -> Cursor:
        """The cursor of a new run."""
        return Cursor.start(seed, self.context, () if self._alone else self.names)

    def advance(self, cursor: Cursor, n: int) -> Cursor:
        """Return the cursor after ``n`` more sequences. Raise ``UserError`` as ``after``."""
        places = self._places(cursor)
        if self._alone:
            return cursor.advance(n, self.counts[0])
        gained = self._gained(cursor.consumed, n)
        moved = (place.advance(more, count) for place, more, count in zip(places, gained, self.counts, strict=True))
        return replace(cursor, sources=tuple(moved), consumed=cursor.consumed + n)

    def after(self, cursor: Cursor, n: int) -> Iterator[Location]:
        """Yield where the next ``n`` sequences lie. Raise ``UserError`` for a cursor that is not of these sources."""
        places = self._places(cursor)
        before = self._gained(cursor.consumed, 0)
        for j in range(n):
            gained = self._gained(cursor.consumed, j + 1)
            source = next(s for s, (old, new) in enumerate(zip(before, gained, strict=True)) if new > old)
            place = places[source].advance(before[source], self.counts[source])
            at = order.locate_sequence(cursor.seed, place.epoch, place.position, self._ends[source], self.context)
            yield Location(source, *at, place.epoch, place.position)
            before = gained

    def first(self, n: int) -> Iterator[Location]:
        """Yield the first windows of each source in file order, together at most ``n``, divided by the weights."""
        for source, (wanted, count) in enumerate(zip(divide(n, self._shares), self.counts, strict=True)):
            for window in range(min(wanted, count)):
                yield Location(source, *order.locate_window(window, self._ends[source], self.context), 0, window)

    def reads(self, n: int) -> tuple[int, ...]:
        """Return how many of the first ``n`` sequences are from each source."""
        return divide(n, self._shares)

    @property
    def _alone(self) -> bool:
        return self.names == ("",)

    def _gained(self, consumed: int, n: int) -> list[int]:
        """Return how many of the ``n`` sequences after the first ``consumed`` of a segment are from each source."""
        before, after = divide(consumed, self._shares), divide(consumed + n, self._shares)
        return [new - old for old, new in zip(before, after, strict=True)]

    def _places(self, cursor: Cursor) -> tuple[Place, ...]:
        if cursor.context != self.context:
            raise ValueError(f"the cursor has context {cursor.context}, the dataset {self.context}")
        places = cursor.sources or (Place("", cursor.epoch, cursor.position),)
        if tuple(place.source for place in places) != self.names:
            read = ", ".join(place.source for place in cursor.sources) or "one phase"
            raise UserError(f"data cursor: is of {read}, the data of {', '.join(self.names) or 'one phase'}: {_REMEDY}")
        for place, count in zip(places, self.counts, strict=True):
            if place.position >= count:
                raise UserError(
                    f"data cursor: sequence {place.position} is past the end of an epoch of {count}"
                    f"{' of ' + place.source if place.source else ''}: the shards are not those the run started with: "
                    f"{_REMEDY}"
                )
        return places


_REMEDY = "restore them, or start a new run from the weights with --init-from"
