"""What a run does about want of memory: a smaller micro-batch at once, a larger one again when there is room.

Nothing of a step is lost by either: the same sequences are cut otherwise. Deciding is all that happens here; the loop
throws the window away, writes the records and replays the step.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from engine.memory.hardware import Hardware
from engine.memory.measured_fit import MeasuredFit, micro_divisors
from profiles.spec import RunSpec

BY = "oom"  # who asked for an edit that the run gave itself
QUIET = 100  # steps without want of memory before a larger micro is tried


class MicroFitter:
    """Learns what fits. ``wanted`` is the micro a person asked for, as long as the run has less than that."""

    def __init__(self, hardware: Hardware) -> None:
        self.wanted: int | None = None
        self._fit = MeasuredFit(hardware)
        self._quiet = 0

    def remember(self, records: Iterable[dict[str, Any]]) -> None:
        """Take in the ``oom`` and applied ``edit`` records of earlier attempts, so that nothing is learnt twice."""
        for record in records:
            if record["kind"] == "oom" and record.get("micro") and record.get("capacity"):
                self._fit.record_oom(record["micro"], record["capacity"])
            elif record["kind"] == "edit" and record.get("ok"):
                micro = record["changed"].get("micro")
                if record.get("by") != BY:
                    self.edited(record["changed"])
                elif micro:
                    self.wanted = max(self.wanted or 0, micro[0]) if micro[1] < micro[0] else self.wanted

    def edited(self, changed: dict[str, Any]) -> None:
        """A person has changed the run: what they ask for now is wanted, and another step is another memory."""
        self._quiet = 0
        if "micro" in changed:
            self.wanted = None
        if "context" in changed:
            self._fit.reset()

    def lower(self, spec: RunSpec, capacity: int | None) -> int | None:
        """The micro to go on with after want of memory; None where one sequence is already too much.

        ``capacity`` is None where nobody knows how much there was: half the micro then.
        """
        self._quiet = 0
        if capacity is None:
            lower = max((n for n in micro_divisors(spec) if n <= spec.batch.micro // 2), default=None)
        else:
            self._fit.record_oom(spec.batch.micro, capacity)
            lower = self._fit.smaller_micro(spec, capacity)
        if lower is not None:
            self.wanted = max(self.wanted or 0, spec.batch.micro)
        return lower

    def step_done(self, spec: RunSpec, peak: int | None) -> None:
        """A step went well, having held ``peak`` bytes at most, if that is known."""
        if peak:
            self._fit.record_peak(spec.batch.micro, peak)
        self._quiet += 1

    def due(self, spec: RunSpec) -> bool:
        """Whether it has been quiet for long enough to look for room for a larger micro; starts the wait anew."""
        if self.wanted is None or spec.batch.micro >= self.wanted or self._quiet < QUIET:
            return False
        self._quiet = 0
        return True

    def higher(self, spec: RunSpec, capacity: int) -> int | None:
        """A larger micro, up to the wanted one, that should fit; None where there is none."""
        return self._fit.larger_micro(spec, self.wanted, capacity) if self.wanted else None
