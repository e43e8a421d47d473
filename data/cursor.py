"""Where a run stands in its data: everything a checkpoint needs to go on with the next sequence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from profiles.errors import UserError


@dataclass(frozen=True, slots=True)
class Segment:
    """A finished stretch of a run at one context length: how many sequences of ``context`` tokens it took."""

    context: int
    sequences: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """The next sequence is number ``position`` of ``epoch``, ``context`` tokens long.

    ``taken`` counts the sequences of the present segment, ``segments`` holds the finished ones, oldest first. A segment
    starts at position 0 of an epoch no segment before it has touched, so the record is enough to replay a run.
    """

    seed: int
    context: int
    epoch: int = 0
    position: int = 0
    taken: int = 0
    segments: tuple[Segment, ...] = ()

    def advance(self, n: int, sequences_per_epoch: int) -> Cursor:
        """The cursor after ``n`` more sequences; the end of an epoch is the beginning of the next."""
        epochs, position = divmod(self.position + n, sequences_per_epoch)
        return replace(self, epoch=self.epoch + epochs, position=position, taken=self.taken + n)

    def at_context(self, context: int) -> Cursor:
        """The cursor after a context edit: a new segment, in an epoch of its own so that its order is a fresh one."""
        if context == self.context:
            return self
        if self.taken == 0:
            return replace(self, context=context)
        epoch = self.epoch + (1 if self.position else 0)
        done = (*self.segments, Segment(self.context, self.taken))
        return Cursor(self.seed, context, epoch=epoch, segments=done)

    @property
    def tokens(self) -> int:
        """Tokens trained on so far, all segments together."""
        return self.context * self.taken + sum(s.context * s.sequences for s in self.segments)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; :meth:`from_dict` reads them back."""
        return asdict(self) | {"segments": [asdict(s) for s in self.segments]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Cursor:
        """Reads what :meth:`to_dict` wrote; UserError where a field is missing, unknown or out of range."""
        plain = _integers(data, ("seed", "context", "epoch", "position", "taken"), extra="segments")
        segments = data.get("segments")
        if not isinstance(segments, (list, tuple)):
            raise _damaged("segments", segments, "a list")
        return cls(**plain, segments=tuple(Segment(**_integers(s, ("context", "sequences"))) for s in segments))


def _integers(data: Any, names: tuple[str, ...], extra: str | None = None) -> dict[str, int]:
    """The integers ``names`` of a table that holds nothing else but ``extra``."""
    if not isinstance(data, Mapping):
        raise _damaged("entry", data, "a table")
    if unknown := sorted(set(data) - {*names, extra}):
        raise _damaged(unknown[0], data[unknown[0]], f"known; the fields are {', '.join(names)}")
    values: dict[str, int] = {}
    for name in names:
        value = data.get(name)
        lowest = 1 if name == "context" else None if name == "seed" else 0
        # bool is an int to Python, but not a count.
        if not isinstance(value, int) or isinstance(value, bool) or (lowest is not None and value < lowest):
            raise _damaged(name, value, "an integer" if lowest is None else f"an integer from {lowest} up")
        values[name] = value
    return values


def _damaged(name: str, value: object, wanted: str) -> UserError:
    return UserError(f"data cursor: {name}: {value!r} is not {wanted}; resume from an older checkpoint")
