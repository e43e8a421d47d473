"""What a restart must know of the attempts before it: the records of what holds beyond the process it was said to.

spec.json says how the run began and a checkpoint where it was; edits, rewinds and a pause stand in the log alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from engine.events.log import Record

CUT = {"micro", "accum"}  # one thing: who changes one of them settles both
STEP = {"sequences", "context"}  # what a step is: who changes one of them settles the cut too


class RestartRequested(Exception):
    """This process cannot go on, but the run can: started again, from its newest checkpoint."""


@dataclass(slots=True)
class EditHistory:
    """``edits`` and ``rewinds`` that still hold, each in the order of the steps at which they are to be applied."""

    edits: deque[Record]
    rewinds: deque[Record]
    paused: bool
    memory: list[Record]  # want of memory and edits, in the order of the log
    killed: bool  # by the kernel for want of memory, and nothing has been changed since

    @classmethod
    def of(cls, records: Iterable[Record]) -> EditHistory:
        """From every ``edit``, ``rewind`` and acknowledging ``state`` record of a log, in its order."""
        past = cls(deque(), deque(), False, [], False)
        for record in records:
            if record["kind"] in ("oom", "edit"):
                past.memory.append(record)
                past.killed = record["kind"] == "oom" and record.get("where") == "host"
            if record["kind"] == "edit" and record.get("ok"):
                past._put_edit(record)
            elif record["kind"] == "rewind":
                past._put_rewind(record)
            elif record["kind"] == "state" and record.get("id") and record.get("phase") in ("paused", "running"):
                past.paused = record["phase"] == "paused"  # as somebody asked
        return past

    def supersede(self, made: Iterable[str]) -> None:
        """Of what is still to be done again, leave out what has just been changed anew."""
        self.edits = _without(self.edits, made)

    def begin_at(self, step: int) -> None:
        """Forget the rewinds before ``step``, of which a checkpoint of that step already knows."""
        while self.rewinds and self.rewinds[0]["step"] < step:
            self.rewinds.popleft()

    def _put_edit(self, record: Record) -> None:
        """One given after a restart, at an earlier step, replaces later ones as far as they change the same."""
        before = (held for held in self.edits if held["step"] <= record["step"])
        behind = (held for held in self.edits if held["step"] > record["step"])
        self.edits = deque([*before, record, *_without(behind, record["changed"])])

    def _put_rewind(self, record: Record) -> None:
        """One given after a restart, at an earlier step, replaces those of later steps."""
        while self.rewinds and self.rewinds[-1]["step"] > record["step"]:
            self.rewinds.pop()
        self.rewinds.append(record)


def due(records: deque[Record], step: int) -> list[Record]:
    """Take the records out that are to be applied at ``step``, or should have been before."""
    found = []
    while records and records[0]["step"] <= step:
        found.append(records.popleft())
    return found


def _without(edits: Iterable[Record], made: Iterable[str]) -> deque[Record]:
    """``edits`` without what ``made`` has settled, and without those of which nothing is left."""
    settled = set(made)
    if settled & STEP:
        settled |= STEP | CUT
    elif settled & CUT:
        settled |= CUT
    left = ({**edit, "changed": {k: v for k, v in edit["changed"].items() if k not in settled}} for edit in edits)
    return deque(edit for edit in left if edit["changed"])
