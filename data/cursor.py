"""The position of a run in its data: everything a checkpoint needs to continue with the next sequence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from profiles.errors import UserError
from profiles.printable import brief, brief_key
from profiles.reader import MAX_COUNT


@dataclass(frozen=True, slots=True)
class Place:
    """Of a source of a mixture, sequence number ``position`` of ``epoch`` is the next."""

    source: str
    epoch: int = 0
    position: int = 0

    def advance(self, n: int, sequences_per_epoch: int) -> Place:
        """Return the place after ``n`` more sequences of the source."""
        epochs, position = divmod(self.position + n, sequences_per_epoch)
        return Place(self.source, self.epoch + epochs, position)

    @property
    def fresh_epoch(self) -> int:
        """The first epoch that nothing has been read of."""
        return self.epoch + (1 if self.position else 0)


@dataclass(frozen=True, slots=True)
class Segment:
    """A finished part of a run, at one context length, on one set of shards and with one set of weights.

    It consumed ``sequences`` sequences of ``context`` tokens.
    """

    context: int
    sequences: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """The next sequence is number ``position`` of ``epoch``, ``context`` tokens long.

    In a mixture each of the ``sources`` has its own place, and ``epoch`` is one that nothing has been read of, where a
    new source may begin. ``consumed`` counts the sequences of the current segment; ``segments`` holds the finished
    ones, oldest first. A segment starts in an epoch that no earlier segment has read from; only a source of a mixture
    whose shards are the same as before goes on where it was.
    """

    seed: int
    context: int
    epoch: int = 0
    position: int = 0
    consumed: int = 0
    segments: tuple[Segment, ...] = ()
    sources: tuple[Place, ...] = ()

    @classmethod
    def start(cls, seed: int, context: int, sources: Iterable[str] = ()) -> Cursor:
        """The cursor of a new run; ``sources``: the names of those of a mixture, in order."""
        return cls(seed, context, sources=tuple(map(Place, sources)))

    def advance(self, n: int, sequences_per_epoch: int) -> Cursor:
        """Return the cursor after ``n`` more sequences of one phase; it wraps into the next epoch."""
        epochs, position = divmod(self.position + n, sequences_per_epoch)
        return replace(self, epoch=self.epoch + epochs, position=position, consumed=self.consumed + n)

    def at_context(self, context: int) -> Cursor:
        """Return the cursor after an edit of the context: a new segment, in its own epoch (and so its own order)."""
        return self if context == self.context else self.new_segment(context)

    def new_segment(self, context: int) -> Cursor:
        """Return the cursor at the start of a new segment, for data that is windowed or made up differently."""
        fresh = tuple(Place(place.source, place.fresh_epoch) for place in self.sources)
        return self.at_places(context, Place("", self.epoch, self.position).fresh_epoch, 0, fresh)

    def at_places(self, context: int, epoch: int, position: int, sources: tuple[Place, ...]) -> Cursor:
        """Return the cursor of a new segment that goes on there."""
        done = (*self.segments, Segment(self.context, self.consumed)) if self.consumed else self.segments
        return Cursor(self.seed, context, epoch, position, 0, done, sources)

    @property
    def fresh_epoch(self) -> int:
        """The first epoch that nothing has been read of, in no source."""
        own = Place("", self.epoch, self.position)
        return max(place.fresh_epoch for place in (own, *self.sources))

    @property
    def tokens(self) -> int:
        """Tokens trained on so far, over all segments."""
        return self.context * self.consumed + sum(s.context * s.sequences for s in self.segments)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; :meth:`from_dict` reads them."""
        return asdict(self) | {name: [asdict(s) for s in getattr(self, name)] for name in _LISTS}

    @classmethod
    def from_dict(cls, data: Any) -> Cursor:
        """Read what :meth:`to_dict` wrote. Raise ``UserError`` if a field is missing, unknown or out of range."""
        plain = _integers(data, ("seed", "context", "epoch", "position", "consumed"), *_LISTS)
        segments, sources = (data.get(name) for name in _LISTS)
        for name, value in zip(_LISTS, (segments, sources), strict=True):
            if not isinstance(value, (list, tuple)):
                raise _damaged(name, value, "a list")
        return cls(
            **plain,
            segments=tuple(Segment(**_integers(s, ("context", "sequences"))) for s in segments),
            sources=tuple(_place(s) for s in sources),
        )


_LISTS = ("segments", "sources")


def _place(data: Any) -> Place:
    numbers = _integers(data, ("epoch", "position"), "source")
    if not isinstance(source := data.get("source"), str):
        raise _damaged("source", source, "text")
    return Place(source, **numbers)


def _integers(data: Any, names: tuple[str, ...], *others: str) -> dict[str, int]:
    """Return the integer fields ``names`` of a table that may hold the ``others`` and no further field."""
    if not isinstance(data, Mapping):
        raise _damaged("entry", data, "a table")
    if unknown := sorted(set(data) - {*names, *others}):
        raise _damaged(unknown[0], data[unknown[0]], f"known; the fields are {', '.join(names)}")
    values: dict[str, int] = {}
    for name in names:
        value = data.get(name)
        lowest = 1 if name == "context" else None if name == "seed" else 0
        # bool is a subclass of int, but not a count.
        if type(value) is not int or abs(value) > MAX_COUNT or (lowest is not None and value < lowest):
            raise _damaged(name, value, "an integer" if lowest is None else f"an integer from {lowest} up")
        values[name] = value
    return values


def _damaged(name: str, value: object, wanted: str) -> UserError:
    return UserError(f"data cursor: {brief_key(name)}: {brief(value)} is not {wanted}; resume from an older checkpoint")
