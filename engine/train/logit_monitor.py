"""Measures the largest attention logit of a run every few steps, and alerts when it passes a threshold."""

from __future__ import annotations

import math
from typing import NamedTuple

from engine.events.types import Alert
from engine.train.backends.backend import Backend
from engine.train.reporter import Reporter
from model.attention_logits import LogitProbe

EVERY = 10  # steps; measured on each of them it would cost up to 2% of the step of a small model
THRESHOLD = 100.0  # where MuonClip begins to scale queries and keys down (arXiv:2507.20534)


class Logit(NamedTuple):
    """The largest attention logit, and the layer and head where it was found, counted from 0."""

    value: float
    layer: int
    head: int


class LogitMonitor:
    """Rank 0 measures, on the first sequence of its first micro-batch; ``backend`` has no torch model on MLX."""

    def __init__(self, backend: Backend, reporter: Reporter, rank: int) -> None:
        self._model = None if rank else backend.torch_model()
        self._reporter = reporter
        self._probe: LogitProbe | None = None
        self._above = False

    def begin_step(self, step: int) -> None:
        """Measure in the next forward if ``step`` is one to measure."""
        self._probe = None
        if self._model is not None and step % EVERY == 0:
            self._probe = self._model.model.logit_probe = LogitProbe()

    def end_step(self) -> float | None:
        """Return the largest logit of the step, if it was measured; alert if it has passed the threshold.

        Call it after the step's loss is known: then it does not wait for the device.
        """
        found = self._probe.largest() if self._probe else []
        self._probe = None
        if not found:
            return None
        largest = max(Logit(value, i, j) for i, heads in enumerate(found) for j, value in enumerate(heads))
        above = largest.value > THRESHOLD
        if above and not self._above:
            self._reporter.record(Alert(what="logits", text=_text(largest)))
        self._above = above
        return largest.value if math.isfinite(largest.value) else None


def _text(largest: Logit) -> str:
    return (
        f"an attention logit is {largest.value:.0f}, above {THRESHOLD:.0f} (layer {largest.layer}, head {largest.head},"
        " both from 0): the loss often spikes after this; lower the learning rate with set lr_scale"
    )
