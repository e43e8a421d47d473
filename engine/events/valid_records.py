"""Reads the step, val and eval records of a log that count: what a restart did again is left out."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from heapq import merge
from pathlib import Path

from engine.events.log import read_all
from engine.events.step_dedup import StepDedup
from engine.events.types import Eval, Start, Step, Val


def valid_records(path: Path) -> Iterator[Step | Val | Eval]:
    """Yield the records in the order of the log, every step once, up to the end that the log has now.

    The log is read twice, so that of a million steps only their numbers and offsets (16 MB) are in memory.
    """
    wanted = _valid_offsets(path)
    offset = next(wanted, None)
    for found, event in read_all(path):
        if offset is None:
            return
        if found == offset and isinstance(event, Step | Val | Eval):
            yield event
            offset = next(wanted, None)


def _valid_offsets(path: Path) -> Iterator[int]:
    steps, vals = _Offsets(), _Offsets()
    dedup = StepDedup()
    for offset, event in read_all(path):
        if not isinstance(event, Start | Step | Val | Eval):
            continue
        last_valid, accepted = dedup.accept(event)
        if last_valid is not None:
            steps.truncate(last_valid)
            vals.truncate(last_valid)
        if accepted and not isinstance(event, Start):
            (steps if isinstance(event, Step) else vals).add(event.step, offset)
    return merge(steps.offsets, vals.offsets)


class _Offsets:
    """The offsets of records whose steps do not fall."""

    def __init__(self) -> None:
        self._steps = array("q")
        self.offsets = array("q")

    def add(self, step: int, offset: int) -> None:
        self._steps.append(step)
        self.offsets.append(offset)

    def truncate(self, last: int) -> None:
        """Remove those of steps after ``last``."""
        while self._steps and self._steps[-1] > last:
            self._steps.pop()
            self.offsets.pop()
