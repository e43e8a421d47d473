"""Which step and val records of a log count: where a restart repeats steps the latest attempt wins."""

from __future__ import annotations

from dataclasses import dataclass

from engine.events.log import Record


@dataclass(slots=True)
class StepDedup:
    """Goes through a log's start, step and val records in order.

    Within an attempt steps rise. One that falls alone is damage and does not count; two in a row mean that the one
    before them was damage, or that the line that told of a restart is lost.
    """

    last: int = -1  # the last step that counts; validation before the first step is of step 0
    last_val: int = -1
    attempt: int = 0
    fallen: int | None = None

    def accept(self, record: Record) -> tuple[int | None, bool]:
        """``(cut, counts)``: what is behind step ``cut`` no longer holds, and whether the record itself counts."""
        kind = record["kind"]
        if kind == "start":
            resumed_from = record.get("resumed_from")
            self.attempt = record.get("attempt", self.attempt)
            return self._back_to(-1 if resumed_from is None else resumed_from), False
        step: int = record["step"]
        if kind == "val":
            if step < self.last_val:
                if step != self.last:
                    return None, False
                return self._back_to(step), True
            self.last_val = step
            return None, True
        attempt = record.get("attempt", self.attempt)
        cut = None
        if step <= self.last:
            if attempt <= self.attempt and self.fallen != step - 1:
                self.fallen = step
                return None, False
            cut = self._back_to(step - 1)
        self.last, self.attempt, self.fallen = step, attempt, None
        return cut, True

    def _back_to(self, step: int) -> int:
        self.last, self.last_val, self.fallen = step, min(self.last_val, step), None
        return step
