"""Replays on resume what earlier attempts of a run went through: edits, rewinds, other data, and whether it was paused.

spec.json says how the run began and a checkpoint where it was. Edits, rewinds and pauses are in the log alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import msgspec

from engine.events.phases import PAUSED
from engine.events.types import Data, Edit, Event, Oom, Rewind, Start, State

SPLIT = {"micro", "accum"}  # how a step is split: two views of one number, an edit of either settles both
STEP = {"sequences", "context"}  # what a step is: an edit of either settles the split too


class RestartRequested(Exception):
    """This process cannot go on, but the run can: a restart resumes it from its newest checkpoint."""


@dataclass(frozen=True, slots=True)
class AttemptStart:
    """An attempt began at ``step`` and read ``data`` from there on."""

    step: int
    data: Data


@dataclass(slots=True)
class EditHistory:
    """What still holds of ``edits``, ``rewinds`` and ``starts``, each in the order of the steps to apply it at."""

    edits: deque[Edit]
    rewinds: deque[Rewind]
    starts: deque[AttemptStart]
    paused: bool
    memory: list[Oom | Edit]  # out-of-memory errors and edits, in the order of the log
    killed: Oom | None  # by the kernel, out of host memory, and nothing was changed since

    @classmethod
    def of(cls, events: Iterable[Event]) -> EditHistory:
        """Build it from the ``edit``, ``oom``, ``rewind``, ``start`` and acknowledging ``state`` records of a log."""
        history = cls(deque(), deque(), deque(), False, [], None)
        for event in events:
            history._put(event)
        return history

    def supersede(self, changed: Iterable[str]) -> None:
        """Drop the ``changed`` keys from the edits that are still to be replayed: a new edit has just set them."""
        self.edits = _without(self.edits, changed)

    def micros(self) -> list[int]:
        """Return the micro-batches of the edits that are still to be replayed."""
        given = [edit.changed["micro"][1] for edit in self.edits if "micro" in edit.changed]
        return [micro for micro in given if type(micro) is int]

    def drop_rewinds_before(self, step: int) -> None:
        """Forget the rewinds before ``step``: the cursor in a checkpoint of that step includes them."""
        while self.rewinds and self.rewinds[0].step < step:
            self.rewinds.popleft()

    def put_start(self, step: int, data: Data) -> None:
        """Take in that an attempt began at ``step`` with ``data``, as its ``start`` record has it.

        It replaces what attempts read from there on. A rewind names a place in the data, which does not outlast them.
        """
        new = AttemptStart(step, data)
        is_known = new in self.starts
        self.starts = deque([*(start for start in self.starts if start.step < step), new])
        if data.new_segment and not is_known:
            self.rewinds = deque(rewind for rewind in self.rewinds if rewind.step < step)

    def _put(self, event: Event) -> None:
        match event:
            case Oom():
                self.memory.append(event)
                self.killed = event if event.where == "host" else None
            case Edit():
                self.memory.append(event)
                self.killed = None
                if event.ok:
                    self._put_edit(event)
            case Rewind():
                self._put_rewind(event)
            case Start():
                self.put_start(event.resumed_from or 0, event.data or Data())
            case State(phase="paused" | "running") if event.id is not None:
                self.paused = event.phase == PAUSED  # an id: a user asked for it

    def _put_edit(self, new: Edit) -> None:
        """Insert an edit; one made after a restart, at an earlier step, replaces later ones of the same keys."""
        before = (edit for edit in self.edits if edit.step <= new.step)
        after = (edit for edit in self.edits if edit.step > new.step)
        self.edits = deque([*before, new, *_without(after, new.changed)])

    def _put_rewind(self, new: Rewind) -> None:
        """Append a rewind; one made after a restart, at an earlier step, replaces those of later steps."""
        while self.rewinds and self.rewinds[-1].step > new.step:
            self.rewinds.pop()
        self.rewinds.append(new)


class _AtStep(Protocol):
    @property
    def step(self) -> int: ...


T = TypeVar("T", bound=_AtStep)


def pop_due(queue: deque[T], step: int) -> list[T]:
    """Remove and return what is to be applied at ``step`` or before."""
    found = []
    while queue and queue[0].step <= step:
        found.append(queue.popleft())
    return found


def _without(edits: Iterable[Edit], changed: Iterable[str]) -> deque[Edit]:
    """``edits`` without the keys that ``changed`` settles, and without those of which no key is left."""
    settled = set(changed)
    if settled & STEP:
        settled |= STEP | SPLIT
    elif settled & SPLIT:
        settled |= SPLIT
    left = ((edit, {key: pair for key, pair in edit.changed.items() if key not in settled}) for edit in edits)
    return deque(msgspec.structs.replace(edit, changed=kept) for edit, kept in left if kept)
