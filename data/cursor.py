"""The position of a run in its data: everything a checkpoint needs to continue with the next sequence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from profiles.errors import UserError
from profiles.printable import brief, brief_key
from profiles.reader import MAX_COUNT


@dataclass(frozen=True, slots=True)
class Segment:
    """A finished part of a run, at one context length and on one set of shards.

    It consumed ``sequences`` sequences of ``context`` tokens.
    """

    context: int
    sequences: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """The next sequence is number ``position`` of ``epoch``, ``context`` tokens long.

    ``consumed`` counts the sequences of the current segment; ``segments`` holds the finished ones, oldest first. A
    segment starts at position 0 of an epoch that no earlier segment has read from, so a cursor is enough to replay the
    data of a run.
    """

    seed: int
    context: int
    epoch: int = 0
    position: int = 0
    consumed: int = 0
    segments: tuple[Segment, ...] = ()

    def advance(self, n: int, sequences_per_epoch: int) -> Cursor:
        """Return the cursor after ``n`` more sequences; it wraps into the next epoch at the end of one."""
        epochs, position = divmod(self.position + n, sequences_per_epoch)
        return replace(self, epoch=self.epoch + epochs, position=position, consumed=self.consumed + n)

    def at_context(self, context: int) -> Cursor:
        """Return the cursor after an edit of the context: a new segment, in an epoch (and so an order) of its own."""
        return self if context == self.context else self.new_segment(context)

    def new_segment(self, context: int) -> Cursor:
        """Return the cursor at the start of a new segment, for data that is windowed or made up differently."""
        if self.consumed == 0:
            return replace(self, context=context)
        epoch = self.epoch + (1 if self.position else 0)
        done = (*self.segments, Segment(self.context, self.consumed))
        return Cursor(self.seed, context, epoch=epoch, segments=done)

    @property
    def tokens(self) -> int:
        """Tokens trained on so far, over all segments."""
        return self.context * self.consumed + sum(s.context * s.sequences for s in self.segments)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; :meth:`from_dict` reads them."""
        return asdict(self) | {"segments": [asdict(s) for s in self.segments]}

    @classmethod
    def from_dict(cls, data: Any) -> Cursor:
        """Read what :meth:`to_dict` wrote. Raise ``UserError`` if a field is missing, unknown or out of range."""
        plain = _integers(data, ("seed", "context", "epoch", "position", "consumed"), extra="segments")
        segments = data.get("segments")
        if not isinstance(segments, (list, tuple)):
            raise _damaged("segments", segments, "a list")
        return cls(**plain, segments=tuple(Segment(**_integers(s, ("context", "sequences"))) for s in segments))


def _integers(data: Any, names: tuple[str, ...], extra: str | None = None) -> dict[str, int]:
    """Return the integer fields ``names`` of a table that may hold ``extra`` and no other field."""
    if not isinstance(data, Mapping):
        raise _damaged("entry", data, "a table")
    if unknown := sorted(set(data) - {*names, extra}):
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
