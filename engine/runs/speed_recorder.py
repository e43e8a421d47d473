"""Records how fast a run trains, which corrects the predicted speeds of later runs on this machine."""

from __future__ import annotations

import contextlib
import statistics
from collections import deque
from pathlib import Path

from engine.events.types import Step
from engine.memory.calibration import record_speed
from engine.memory.hardware import detect_hardware
from engine.memory.search.speed import step_seconds
from profiles.errors import UserError
from profiles.spec import RunSpec

_WARMUP = 2  # steps of an attempt, or after an edit of the batch, that are not counted: they compile and allocate
_STEPS = 10  # whose median is recorded


class SpeedRecorder:
    """One for each run; steps come in order."""

    def __init__(self, spec: RunSpec, run: str, home: Path) -> None:
        self._spec, self._run, self._home = spec, run, home
        self._shape: tuple[int | None, ...] = ()
        self._speeds: deque[float] = deque(maxlen=_STEPS + _WARMUP)
        self._recorded = False

    def restart(self) -> None:
        """Begin again: a new attempt starts cold."""
        self._speeds.clear()

    def observe(self, step: Step) -> None:
        """Take in a step; record the speed once for every shape of the batch."""
        shape = (step.micro, step.accum, step.context)
        if shape != self._shape:
            self._shape, self._recorded = shape, False
            self._speeds.clear()
        if self._recorded or step.tok_s is None:
            return
        self._speeds.append(step.tok_s)
        if len(self._speeds) == _STEPS + _WARMUP:
            self._recorded = True
            self._record(step, statistics.median(list(self._speeds)[_WARMUP:]))

    def _record(self, step: Step, tok_s: float) -> None:
        if step.micro is None or step.accum is None or step.context is None:
            return
        sequences = step.micro * step.accum * self._spec.ranks
        with contextlib.suppress(OSError, UserError):  # a full disk, or values that no run can have
            spec = self._spec.with_batch(micro=step.micro, sequences=sequences, context=step.context)
            hardware = detect_hardware(spec.launch.gpus_per_node)
            predicted = spec.tokens_per_step / step_seconds(spec, hardware)[0]
            record_speed(spec, hardware, predicted, tok_s, run=self._run, home=self._home)
