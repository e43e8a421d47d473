"""Decides what a run does after an out-of-memory error: lower micro, ask the user, or end, as ``memory.oom`` says.

The handler returns a decision and the loop applies it. A step that ran out of memory is thrown away whole and the data
cursor does not move, so no sequence is lost or seen twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.events.types import Edit, Oom
from engine.memory.hardware import Hardware
from engine.memory.search.remedy import remedy_after_oom
from engine.train.backends.backend import Backend
from engine.train.backends.ranks import Ranks
from engine.train.continue_command import continue_command
from engine.train.edit_history import EditHistory
from engine.train.oom.markers import pop_marker
from engine.train.oom.memory_monitor import MemoryMonitor
from engine.train.oom.micro_fitter import MicroFitter
from engine.train.oom.recognize import HOST, OutOfMemory, requested
from engine.train.phases import OPTIMIZER
from profiles.errors import SpecError
from profiles.spec import RunSpec


@dataclass(frozen=True, slots=True)
class ChangeMicro:
    """Go on with another micro-batch size; the change is logged as an edit."""

    micro: int
    why: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End the run with ``error``."""

    error: str


@dataclass(frozen=True, slots=True)
class AskUser:
    """Pause until the user edits or resumes the run; after ``timeout`` seconds do ``otherwise``."""

    reason: str
    timeout: float
    otherwise: ChangeMicro | GiveUp


Decision = ChangeMicro | GiveUp | AskUser


class OomHandler:
    """Each rank has one; ``decide`` is rank 0's alone."""

    def __init__(self, backend: Backend, monitor: MemoryMonitor, hardware: Hardware, ranks: Ranks, out: Path) -> None:
        self._backend = backend
        self._monitor = monitor
        self._hardware = hardware
        self._ranks = ranks
        self._out = out  # the folder of the run's checkpoints
        self._fitter = MicroFitter(hardware)

    # -- what the run has seen

    def learn(self, events: Iterable[Oom | Edit]) -> None:
        """Take in the out-of-memory errors and edits of earlier attempts."""
        self._fitter.learn(events)

    def record_edit(self, changed: dict[str, Any]) -> None:
        """Take in an edit that a user made."""
        self._fitter.record_edit(changed)

    def record_step(self, spec: RunSpec, peak: int | None) -> None:
        """Take in a step that was done, with the ``peak`` of device memory in bytes where it is known."""
        self._fitter.record_step(spec, peak)

    # -- what it is to do

    def can_retry(self, failure: OutOfMemory) -> bool:
        """Whether this process can do the step again.

        Not after an error in the optimizer's step, which may have changed half the weights; not where the backend
        cannot discard what a failed backward leaves behind; not with several ranks, which wait in a collective.
        """
        return self._ranks.size == 1 and self._backend.can_retry_step and failure.where != OPTIMIZER

    def can_save(self, failure: OutOfMemory) -> bool:
        """Whether the weights are still those of the last whole step, all of them in this process."""
        return self._ranks.size == 1 and failure.where != OPTIMIZER

    def decide(self, failure: OutOfMemory, spec: RunSpec) -> Decision:
        """Log ``failure`` and return what the run does about it."""
        # What the process could have had is not known once the kernel has killed it.
        capacity = None if failure.where == HOST else self._backend.capacity()
        lower = self._fitter.lower(spec, capacity)
        # Several ranks cannot wait for a user: the others are within a collective.
        policy = "auto" if spec.memory.oom == "ask" and self._ranks.size > 1 else spec.memory.oom
        action = policy if policy != "auto" else "fail" if lower is None else f"micro {lower}"
        self._monitor.record_oom(failure, spec, action, capacity)
        if policy == "fail":
            return GiveUp(self._error(failure, spec, "and memory.oom = fail", capacity))
        fallback = (
            GiveUp(self._error(failure, spec, "the smallest there is", capacity))
            if lower is None
            else ChangeMicro(lower, failure.text)
        )
        if policy == "ask":
            timeout = spec.memory.oom_wait
            reason = f"out of memory in {failure.where}: change it with set, or resume as it is; within {timeout} s"
            return AskUser(reason, timeout, fallback)
        return fallback

    def decide_validation(self, failure: OutOfMemory, spec: RunSpec, rows: int) -> int | GiveUp:
        """Log that ``rows`` validation sequences at once did not fit; return a smaller number, or ``GiveUp``."""
        if rows == 1 or spec.memory.oom == "fail":
            self._monitor.record_oom(failure, spec, "fail", None)
            return GiveUp(self._error(failure, spec, "validating"))
        rows = -(-rows // 2)
        self._monitor.record_oom(failure, spec, f"validate {rows} at once", None)
        return rows

    def unanswered(self, history: EditHistory, spec: RunSpec) -> tuple[OutOfMemory, RunSpec] | None:
        """Return what ended an earlier attempt out of memory before anything was done about it, and with which spec.

        Another rank has left a marker, the kernel's kill is in the ``history``. Its micro-batch may be that of an edit
        behind the checkpoint, which this attempt has yet to make again.
        """
        largest = max([spec.batch.micro, *history.micros()])
        failure = self._ranks.run_on_rank_zero(lambda: pop_marker(self._out, largest))
        killed = history.killed if self._hardware.device != "cuda" else None  # there micro takes no host memory
        if failure is None and killed:
            failure = OutOfMemory(HOST, None, "the kernel killed the trainer", killed.micro)
        if failure is None:
            return None
        failed = _with_micro(spec, failure.micro)
        return (failure, failed) if failed.batch.micro > 1 or spec.memory.oom == "fail" else None

    def _error(self, failure: OutOfMemory, spec: RunSpec, why: str, capacity: int | None = None) -> str:
        """Return the reason the run ends with; the ``oom`` record has the allocator's own text."""
        options = remedy_after_oom(spec, self._hardware, failure.wanted, capacity)
        change = f"use {options}" if options else "use a smaller model or a shorter context"
        return (
            f"out of memory in {failure.where} at micro {spec.batch.micro}, {why}{requested(failure)};"
            f" {change} and {continue_command(self._out)}"
        )

    def growth(self, spec: RunSpec) -> ChangeMicro | None:
        """A larger micro-batch that should fit by now, after a long stretch without errors. The same on all ranks."""
        if not self._fitter.may_grow(spec):
            return None
        larger = self._ranks.run_on_rank_zero(lambda: self._fitter.higher(spec, self._backend.capacity()))
        return None if larger is None else ChangeMicro(larger, "there is room again")


def _with_micro(spec: RunSpec, micro: int | None) -> RunSpec:
    """Return ``spec`` with another ``micro``, or as it is where its sequences are not those of that micro."""
    try:
        return spec.with_batch(micro=micro) if micro else spec
    except SpecError:
        return spec
