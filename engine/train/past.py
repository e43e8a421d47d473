"""What a restart must know of the attempts before it: the records of what holds beyond the process it was said to.

spec.json says how the run began and a checkpoint where it was; edits, rewinds and a pause stand in the log alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from engine.jobs.log import Record


class Rewound(Exception):
    """This process cannot go on, but the run can: started again, from its newest checkpoint."""


@dataclass(slots=True)
class Past:
    """``edits`` and ``rewinds`` that still hold, each in the order of the steps at which they are to be applied."""

    edits: deque[Record]
    rewinds: deque[Record]
    paused: bool

    @classmethod
    def of(cls, records: Iterable[Record]) -> Past:
        """From every ``edit``, ``rewind`` and acknowledging ``state`` record of a log, in its order."""
        past = cls(deque(), deque(), False)
        for record in records:
            if record["kind"] == "edit" and record.get("ok"):
                _put(past.edits, record)
            elif record["kind"] == "rewind":
                _put(past.rewinds, record)
            elif record["kind"] == "state" and record.get("id") and record.get("phase") in ("paused", "running"):
                past.paused = record["phase"] == "paused"  # as somebody asked
        return past

    def begin_at(self, step: int) -> None:
        """Forget the rewinds before ``step``, of which a checkpoint of that step already knows."""
        while self.rewinds and self.rewinds[0]["step"] < step:
            self.rewinds.popleft()


def due(records: deque[Record], step: int) -> list[Record]:
    """Take the records out that are to be applied at ``step``, or should have been before."""
    found = []
    while records and records[0]["step"] <= step:
        found.append(records.popleft())
    return found


def _put(holding: deque[Record], record: Record) -> None:
    """One given after a restart, at an earlier step, replaces those of later steps."""
    while holding and holding[-1]["step"] > record["step"]:
        holding.pop()
    holding.append(record)
