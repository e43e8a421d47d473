"""Fits the micro-batch to the memory there is: smaller after an out-of-memory error, larger again when there is room.

Neither loses anything of a step: the same sequences are split into other micro-batches. This module only decides; the
loop discards the step, writes the records and does the step again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from engine.events.types import Edit, Oom
from engine.memory.hardware import Hardware
from engine.memory.measured_fit import MeasuredFit
from engine.memory.search.micro import micro_divisors
from profiles.spec import RunSpec

BY = "oom"  # the ``by`` of an edit that the run made itself
GROW_AFTER = 100  # steps without an out-of-memory error before a larger micro is tried


class MicroFitter:
    """``target`` is the micro that the user asked for, while the run has less than that."""

    def __init__(self, hardware: Hardware) -> None:
        self.target: int | None = None
        self._fit = MeasuredFit(hardware)
        self._steps_since_oom = 0

    def learn(self, events: Iterable[Oom | Edit]) -> None:
        """Take in the out-of-memory errors and edits of earlier attempts, so that nothing is tried twice."""
        for event in events:
            if isinstance(event, Oom):
                if event.micro and event.capacity:
                    self._fit.record_oom(event.micro, event.capacity)
            elif event.ok:
                micro = event.changed.get("micro")
                if event.by != BY:
                    self.record_edit(event.changed)
                elif micro:
                    self.target = max(self.target or 0, micro[0]) if micro[1] < micro[0] else self.target

    def record_edit(self, changed: dict[str, Any]) -> None:
        """Take in a user's edit: its micro is the new target, and another context needs other memory."""
        self._steps_since_oom = 0
        if "micro" in changed:
            self.target = None
        if "context" in changed:
            self._fit.reset()

    def lower(self, spec: RunSpec, capacity: int | None) -> int | None:
        """The micro to go on with after an out-of-memory error; None where one sequence is already too much.

        ``capacity``: bytes the process could have had; None where that is not known: half the micro then.
        """
        self._steps_since_oom = 0
        if capacity is None:
            lower = max((n for n in micro_divisors(spec) if n <= spec.batch.micro // 2), default=None)
        else:
            self._fit.record_oom(spec.batch.micro, capacity)
            lower = self._fit.smaller_micro(spec, capacity)
        if lower is not None:
            self.target = max(self.target or 0, spec.batch.micro)
        return lower

    def record_step(self, spec: RunSpec, peak: int | None) -> None:
        """Take in a step that was done; ``peak``: bytes it held at most, where that is known."""
        if peak:
            self._fit.record_peak(spec.batch.micro, peak)
        self._steps_since_oom += 1

    def may_grow(self, spec: RunSpec) -> bool:
        """Whether it is time to look for memory for a larger micro; if so, the next time is ``GROW_AFTER`` steps on."""
        if self.target is None or spec.batch.micro >= self.target or self._steps_since_oom < GROW_AFTER:
            return False
        self._steps_since_oom = 0
        return True

    def higher(self, spec: RunSpec, capacity: int) -> int | None:
        """A larger micro, up to the target, that should fit into ``capacity`` bytes; None where there is none."""
        return self._fit.larger_micro(spec, self.target, capacity) if self.target else None
