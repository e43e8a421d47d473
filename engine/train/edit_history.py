"""Replays on resume what earlier attempts of a run were told: edits, rewinds, other data, and whether it was paused.

spec.json says how the run began and a checkpoint where it was. Edits, rewinds and pauses are in the log alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from engine.events.log import Record

SPLIT = {"micro", "accum"}  # how a step is split: two views of one number, an edit of either settles both
STEP = {"sequences", "context"}  # what a step is: an edit of either settles the split too


class RestartRequested(Exception):
    """This process cannot go on, but the run can: a restart resumes it from its newest checkpoint."""


@dataclass(slots=True)
class EditHistory:
    """What still holds of ``edits``, ``rewinds`` and ``starts``, each in the order of the steps to apply it at."""

    edits: deque[Record]
    rewinds: deque[Record]
    starts: deque[Record]  # of attempts: the step resumed from, and the data read from there on
    paused: bool
    memory: list[Record]  # out-of-memory errors and edits, in the order of the log
    killed: bool  # by the kernel, out of host memory, and nothing was changed since

    @classmethod
    def of(cls, records: Iterable[Record]) -> EditHistory:
        """Build it from the ``edit``, ``oom``, ``rewind``, ``start`` and acknowledging ``state`` records of a log."""
        history = cls(deque(), deque(), deque(), False, [], False)
        for record in records:
            if record["kind"] in ("oom", "edit"):
                history.memory.append(record)
                history.killed = record["kind"] == "oom" and record.get("where") == "host"
            if record["kind"] == "edit" and record.get("ok"):
                history._put_edit(record)
            elif record["kind"] == "rewind":
                history._put_rewind(record)
            elif record["kind"] == "start":
                history.put_start(record.get("resumed_from") or 0, record.get("data") or {})
            elif record["kind"] == "state" and record.get("id") and record.get("phase") in ("paused", "running"):
                history.paused = record["phase"] == "paused"  # an id: a user asked for it
        return history

    def supersede(self, changed: Iterable[str]) -> None:
        """Drop the ``changed`` keys from the edits that are still to be replayed: a new edit has just set them."""
        self.edits = _without(self.edits, changed)

    def drop_rewinds_before(self, step: int) -> None:
        """Forget the rewinds before ``step``: the cursor in a checkpoint of that step includes them."""
        while self.rewinds and self.rewinds[0]["step"] < step:
            self.rewinds.popleft()

    def put_start(self, step: int, data: Record) -> None:
        """Take in that an attempt began at ``step`` with ``data``, as its ``start`` record has it.

        It replaces what attempts read from there on. A rewind names a place in the data, which does not outlast them.
        """
        before = [start for start in self.starts if start["step"] == step]
        self.starts = deque([*(start for start in self.starts if start["step"] < step), {"step": step, **data}])
        if data.get("new_segment") and not any(start == self.starts[-1] for start in before):
            self.rewinds = deque(rewind for rewind in self.rewinds if rewind["step"] < step)

    def _put_edit(self, record: Record) -> None:
        """Insert an edit; one made after a restart, at an earlier step, replaces later ones of the same keys."""
        before = (edit for edit in self.edits if edit["step"] <= record["step"])
        after = (edit for edit in self.edits if edit["step"] > record["step"])
        self.edits = deque([*before, record, *_without(after, record["changed"])])

    def _put_rewind(self, record: Record) -> None:
        """Append a rewind; one made after a restart, at an earlier step, replaces those of later steps."""
        while self.rewinds and self.rewinds[-1]["step"] > record["step"]:
            self.rewinds.pop()
        self.rewinds.append(record)


def pop_due(records: deque[Record], step: int) -> list[Record]:
    """Remove and return the records that are to be applied at ``step`` or before."""
    found = []
    while records and records[0]["step"] <= step:
        found.append(records.popleft())
    return found


def _without(edits: Iterable[Record], changed: Iterable[str]) -> deque[Record]:
    """``edits`` without the keys that ``changed`` settles, and without those of which no key is left."""
    settled = set(changed)
    if settled & STEP:
        settled |= STEP | SPLIT
    elif settled & SPLIT:
        settled |= SPLIT
    left = ({**edit, "changed": {k: v for k, v in edit["changed"].items() if k not in settled}} for edit in edits)
    return deque(edit for edit in left if edit["changed"])
