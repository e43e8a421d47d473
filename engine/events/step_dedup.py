"""Decides which step, val and eval records of a log count: if a restart repeats steps, the latest attempt wins."""

from __future__ import annotations

from dataclasses import dataclass

from engine.events.types import Eval, Start, Step, Val


@dataclass(slots=True)
class StepDedup:
    """Receives the start, step, val and eval records of a log in order.

    Steps rise within an attempt. A single step that falls is damage and is rejected. Two falling steps in a row mean
    that an earlier record was damaged, or that the ``start`` record of a restart was lost.
    """

    last: int = -1  # last accepted step; validation before the first step has step 0
    last_val: int = -1
    attempt: int = 0
    rejected: int | None = None  # the falling step just rejected

    def accept(self, event: Start | Step | Val | Eval) -> tuple[int | None, bool]:
        """Return ``(last_valid, accepted)``.

        If ``last_valid`` is not None, every earlier record of a later step is void. ``accepted`` says whether this
        record counts.
        """
        if isinstance(event, Step):  # first, because most records are steps
            step, attempt, last_valid = event.step, event.attempt or self.attempt, None
            if step <= self.last:
                if attempt <= self.attempt and self.rejected != step - 1:
                    self.rejected = step
                    return None, False
                last_valid = self._rewind(step - 1)
            self.last, self.attempt, self.rejected = step, attempt, None
            return last_valid, True
        if isinstance(event, Val | Eval):
            return self._accept_val(event.step)
        self.attempt = event.attempt or self.attempt
        return self._rewind(-1 if event.resumed_from is None else event.resumed_from), False

    def _accept_val(self, step: int) -> tuple[int | None, bool]:
        if step < self.last_val:
            if step != self.last:
                return None, False
            return self._rewind(step), True
        self.last_val = step
        return None, True

    def _rewind(self, step: int) -> int:
        self.last, self.last_val, self.rejected = step, min(self.last_val, step), None
        return step
