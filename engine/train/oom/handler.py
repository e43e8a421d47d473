"""What a run does when memory does not suffice: makes itself smaller, asks, or ends, as ``memory.oom`` says.

A window in which it happened is thrown away whole and the cursor does not move, so that no sequence is lost or seen
twice. Where an error leaves the backend in a state that no next step may be built on, the process ends and the next
attempt begins at the last whole step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from engine.memory.hardware import Hardware
from engine.train.backends.backend import Backend, Batch
from engine.train.backends.ranks import Ranks
from engine.train.edit_history import EditHistory, RestartRequested
from engine.train.edits import changed
from engine.train.oom.memory_monitor import MemoryMonitor
from engine.train.oom.micro_fitter import BY, MicroFitter
from engine.train.oom.recognize import FORWARD, HOST, OPTIMIZER, VALIDATION, OutOfMemory
from profiles.errors import UserError
from profiles.spec import RunSpec


class Run(Protocol):
    """What a rescue needs of the run."""

    backend: Backend
    ranks: Ranks
    step: int

    @property
    def spec(self) -> RunSpec: ...

    def change(self, new: RunSpec, made: dict[str, Any], note: str, **answer: Any) -> None:
        """Make an edit, and write it down."""

    def pause(self, reason: str, id: str | None = None, patience: float | None = None) -> bool:
        """Hold; with ``patience`` until an edit, too; False where nobody came in that time."""

    def save_now(self) -> str:
        """Have a checkpoint of the present step."""


class OomHandler:
    def __init__(self, run: Run, keeper: MemoryMonitor, hardware: Hardware) -> None:
        self.recovery = MicroFitter(hardware)
        self._run = run
        self._keeper = keeper
        self._hardware = hardware
        self._val_rows = run.spec.batch.micro  # validation windows at once

    def step(self, body: Callable[[], None]) -> None:
        """Do ``body``, a whole step, and do it again with a smaller micro as long as memory does not suffice."""
        run = self._run
        while (failure := self._keeper.want_in(body)) is not None:
            self._recover(failure)
        if self.recovery.due(run.spec):
            larger = run.ranks.run_on_rank_zero(lambda: self.recovery.higher(run.spec, run.backend.capacity()))
            if larger is not None:
                self._change_micro(larger, "there is room again")

    def evaluated(self, batch: Batch) -> float:
        """The summed loss over ``batch``, in smaller pieces where memory does not suffice for it at once."""
        total, backend, spec = 0.0, self._run.backend, self._run.spec

        def evaluate() -> None:
            nonlocal total
            self._keeper.where = VALIDATION
            rows = self._val_rows
            total = sum(backend.evaluate(batch[first : first + rows]) for first in range(0, len(batch), rows))
            self._keeper.where = FORWARD

        while (failure := self._keeper.want_in(evaluate)) is not None:
            backend.empty_cache()
            if self._val_rows == 1 or spec.memory.oom == "fail":
                self._keeper.tell(failure, spec, "fail", None)
                raise _too_much(failure, spec, "validating")
            self._val_rows = -(-self._val_rows // 2)
            self._keeper.tell(failure, spec, f"validate {self._val_rows} at once", None)
        return total

    def answer_for(self, past: EditHistory) -> None:
        """Act on what ended an earlier attempt unanswered: the kernel's kill, another rank's want of memory."""
        run = self._run
        failure = run.ranks.run_on_rank_zero(lambda: self._keeper.word_left(run.spec.batch.micro))
        if failure is None and past.killed and self._hardware.device != "cuda":  # there micro takes no host memory
            failure = OutOfMemory(HOST, None, "the kernel killed the trainer")
        if failure is not None and (run.spec.batch.micro > 1 or run.spec.memory.oom == "fail"):
            self._decide(failure)

    def _recover(self, failure: OutOfMemory) -> None:
        """Make room and return, so that the step is done again; or end this attempt."""
        run = self._run
        if run.ranks.rank:
            self._keeper.leave_word(failure, run.ranks.rank, run.spec.batch.micro)
        alone, stepping = run.ranks.size == 1, failure.where == OPTIMIZER  # then weights may be half stepped
        here = alone and run.backend.can_retry_step and not stepping
        if here:
            run.backend.discard_window()
        run.backend.empty_cache()
        self._decide(failure)
        if not here:
            if alone and not stepping and run.step:
                run.save_now()  # the masters have not been touched since the last step
            raise RestartRequested(f"out of memory in {failure.where}: {failure.text}; begins again with less")

    def _decide(self, failure: OutOfMemory) -> None:
        """As ``memory.oom`` says: raise, let a person choose, or take a smaller micro. Several ranks cannot wait for a
        person, for the others are within a sum."""
        spec = self._run.spec
        capacity = None if failure.where == HOST else self._run.backend.capacity()  # what it was is gone with it
        lower = self.recovery.lower(spec, capacity)
        policy = "auto" if spec.memory.oom == "ask" and self._run.ranks.size > 1 else spec.memory.oom
        action = policy if policy != "auto" else f"micro {lower}" if lower else "fail"
        self._keeper.tell(failure, spec, action, capacity)
        if policy == "fail":
            raise _too_much(failure, spec, "and memory.oom = fail")
        if policy == "ask" and self._asked_for_room(failure):
            return
        if lower is None:
            raise _too_much(failure, spec, "the smallest there is")
        self._change_micro(lower, failure.text)

    def _asked_for_room(self, failure: OutOfMemory) -> bool:
        """Hold until a person has changed the run, or wants it tried as it is; False where nobody came in time."""
        patience = self._run.spec.memory.oom_wait
        reason = f"out of memory in {failure.where}: change it with set, or resume as it is; within {patience} s"
        return self._run.pause(reason, patience=patience)

    def _change_micro(self, micro: int, why: str) -> None:
        """An edit that the run gives itself; it stands in the log as every edit does."""
        spec = self._run.spec
        new = spec.with_batch(micro=micro)
        self._run.change(new, changed(spec, new), why, step=self._run.step, by=BY)


def _too_much(failure: OutOfMemory, spec: RunSpec, why: str) -> UserError:
    """The end of a run that nothing can make smaller by itself."""
    return UserError(
        f"out of memory in {failure.where} at micro {spec.batch.micro}, {why}: {failure.text};"
        " mla-tui plan shows what would fit; go on with --resume latest and less of what it names"
    )
