"""A run's memory while it lives: want of it is caught and described, what was forecast and measured is told."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.host.files import read_json, write_json
from engine.memory.forecast import forecast
from engine.memory.hardware import Hardware
from engine.train.backends.backend import Backend
from engine.train.edit_history import RestartRequested
from engine.train.oom.recognize import BACKWARD, FORWARD, OutOfMemory, recognized
from engine.train.reporter import Reporter
from profiles.spec import RunSpec

SETTLED = 5  # steps after which a run has been at its fullest
PRESSURE_EVERY = 100  # steps between two alerts of the same pressure


class MemoryMonitor:
    """``where`` is what the run is doing, in the words of an ``oom`` record."""

    def __init__(self, backend: Backend, reporter: Reporter, hardware: Hardware, out: Path) -> None:
        self.where = FORWARD
        self.hardware = hardware
        self._backend = backend
        self._reporter = reporter
        self._out = out
        self._peak = 0
        self._steps = 0  # since the run began or was last changed
        self._changes = 0
        self._retries = backend.allocator_retries()
        self._pressed = -PRESSURE_EVERY
        backend.lap = self._passed

    def want_in(self, body: Callable[[], None]) -> OutOfMemory | None:
        """Run ``body``; what it ran out of, or None. Other errors are raised."""
        try:
            body()
        except Exception as error:
            failure = recognized(error, self.where)
            self.where = FORWARD
            if failure is None:
                raise
        else:
            return None
        # Out here: within the except block the traceback would pin the tensors that are to be freed.
        return failure

    def tell(self, failure: OutOfMemory, spec: RunSpec, action: str, capacity: int | None) -> None:
        """Write the ``oom`` record."""
        self._reporter.record(
            "oom",
            where=failure.where,
            wanted=failure.wanted,
            text=failure.text,
            parts=self._parts(spec),
            action=action,
            micro=spec.batch.micro,
            accum=spec.accum,
            capacity=capacity,
        )

    def changed(self, spec: RunSpec) -> None:
        """The run begins as ``spec``, or has just become it: tell what that should take."""
        self._steps = self._peak = 0
        self._changes += 1
        self._reporter.record("memory", parts=self._parts(spec), measured=None, **_batch(spec))

    def step_done(self, spec: RunSpec, step: int, peak: int | None) -> None:
        """A step went well; ``peak`` is the most the device held in it, where that is known."""
        self._peak = max(self._peak, peak or 0)
        self._steps += 1
        if self._steps == SETTLED:
            # Of the host the kernel tells only the most there ever was: of the run as it began.
            measured = {"device": self._peak or None, "host": _most_resident() if self._changes == 1 else None}
            self._reporter.record("memory", parts=self._parts(spec), measured=measured, **_batch(spec))
        retries = self._backend.allocator_retries()
        if retries > self._retries and step - self._pressed >= PRESSURE_EVERY:
            self._pressed = step
            text = f"the allocator had to empty its cache {retries - self._retries} times to find room; lower micro"
            self._reporter.record("alert", what="pressure", text=text)
        self._retries = retries

    def leave_word(self, failure: OutOfMemory, rank: int, micro: int) -> None:
        """For ranks other than the first, which have no log: what rank 0 of the next attempt will find."""
        told = {"where": failure.where, "wanted": failure.wanted, "text": failure.text, "micro": micro}
        write_json(self._out / f".oom.{rank}", told)
        raise RestartRequested(f"out of memory in {failure.where} on rank {rank}: {failure.text}")

    def word_left(self, micro: int) -> OutOfMemory | None:
        """What another rank ran out of in an earlier attempt at no more than ``micro``, told once."""
        found = None
        for path in self._out.glob(".oom.*"):
            told = read_json(path)
            path.unlink(missing_ok=True)
            if isinstance(told.get("micro"), int) and told["micro"] <= micro:  # else it has been answered already
                text = f"rank {path.name[5:]}: {told.get('text')}"
                found = OutOfMemory(str(told.get("where")), told.get("wanted"), text)
        return found

    def _parts(self, spec: RunSpec) -> dict[str, int]:
        told = forecast(spec, self.hardware)
        return told.device or told.host

    def _passed(self, part: str) -> None:
        self.where = BACKWARD if part == "forward" else FORWARD


def _batch(spec: RunSpec) -> dict[str, Any]:
    batch = spec.batch
    return {"micro": batch.micro, "sequences": batch.sequences, "context": batch.context}


def _most_resident() -> int:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10  # bytes there, KiB here
