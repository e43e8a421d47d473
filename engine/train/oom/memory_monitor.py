"""Logs what a run should take, what it really peaked at, and every out-of-memory error.

A ``memory`` record with the forecast is written when the run begins and after every edit that changes it, and another
with the measured peak once the run has been at its fullest. An alert is written where the allocator has to empty its
cache to go on.
"""

from __future__ import annotations

import resource
import sys

from engine.events.types import Alert, Measured, Memory, Oom
from engine.memory.forecast import forecast
from engine.memory.hardware import Hardware
from engine.train.backends.backend import Backend
from engine.train.oom.recognize import OutOfMemory
from engine.train.reporter import Reporter
from profiles.spec import RunSpec

SETTLED = 5  # steps after which a run has been at its fullest
PRESSURE_EVERY = 100  # steps between two alerts of the same pressure


class MemoryMonitor:
    def __init__(self, backend: Backend, reporter: Reporter, hardware: Hardware) -> None:
        self._hardware = hardware
        self._backend = backend
        self._reporter = reporter
        self._peak = 0
        self._forecast: Memory | None = None
        self._forecasts = 0
        self._steps = 0  # since that forecast
        self._retries = backend.allocator_retries()
        self._last_alert = -PRESSURE_EVERY

    def record_forecast(self, spec: RunSpec) -> None:
        """Log what ``spec``, as which the run begins or has just become, should take, unless that is what it took."""
        expected = self._memory(spec, None)
        if expected == self._forecast:
            return
        self._forecast = expected
        self._forecasts += 1
        self._steps = self._peak = 0
        self._reporter.record(expected)

    def record_step(self, spec: RunSpec, step: int, peak: int | None) -> None:
        """Take in a step that was done; ``peak``: bytes the device held at most in it, where that is known."""
        self._peak = max(self._peak, peak or 0)
        self._steps += 1
        if self._steps == SETTLED:
            # The kernel gives only the highest host memory since the process began: of the run as it was started.
            measured = Measured(device=self._peak or None, host=_peak_rss() if self._forecasts == 1 else None)
            if measured != Measured():
                self._reporter.record(self._memory(spec, measured))
        retries = self._backend.allocator_retries()
        if retries > self._retries and step - self._last_alert >= PRESSURE_EVERY:
            self._last_alert = step
            text = f"the allocator emptied its cache {retries - self._retries} times to find free memory; lower micro"
            self._reporter.record(Alert(what="pressure", text=text))
        self._retries = retries

    def record_oom(self, failure: OutOfMemory, spec: RunSpec, action: str, capacity: int | None) -> None:
        """Log ``failure`` and the ``action`` that answers it; ``capacity``: bytes the process could have had."""
        self._reporter.record(
            Oom(
                where=failure.where,
                wanted=failure.wanted,
                text=failure.text,
                parts=self._parts(spec),
                action=action,
                micro=spec.batch.micro,
                accum=spec.accum,
                capacity=capacity,
            )
        )

    def _memory(self, spec: RunSpec, measured: Measured | None) -> Memory:
        batch, parts = spec.batch, self._parts(spec)
        return Memory(
            parts=parts, measured=measured, micro=batch.micro, sequences=batch.sequences, context=batch.context
        )

    def _parts(self, spec: RunSpec) -> dict[str, int]:
        predicted = forecast(spec, self._hardware)
        return predicted.device or predicted.host


def _peak_rss() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10  # bytes on macOS, KiB on Linux
