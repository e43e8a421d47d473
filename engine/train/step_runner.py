"""Runs one optimizer step: reads its data, splits it into micro-batches, sums their gradients, updates the weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from data.cursor import Cursor
from engine.train.backends.backend import Backend
from engine.train.backends.ranks import Ranks
from engine.train.logit_monitor import LogitMonitor
from engine.train.oom.recognize import OutOfMemory, catch_oom
from engine.train.run_state import RunState
from engine.train.schedule import learning_rate


@dataclass(frozen=True, slots=True)
class Done:
    """The step was done: the weights are those after it, and the data goes on at ``cursor``."""

    loss: float  # mean over the tokens of the step that count
    grad_norm: float  # before clipping
    lr: float
    cursor: Cursor
    data_s: float
    step_s: float
    attn_logit: float | None  # the largest attention logit, in the steps that measure it


@dataclass(frozen=True, slots=True)
class NotFinite:
    """Loss or gradient is not a number; the weights were not touched. The data goes on at ``cursor``."""

    loss: float
    grad_norm: float
    cursor: Cursor


@dataclass(frozen=True, slots=True)
class MicroBatchDone:
    """How far a step is: the device has finished ``done`` micro-batches of ``total``.

    ``tok_s``: tokens a second over all ranks so far.
    """

    done: int
    total: int
    tok_s: float


class StepRunner:
    """``between`` is called after every micro-batch but the last; ``before_update`` before the weights change.

    What they raise ends the step.
    """

    def __init__(
        self,
        backend: Backend,
        state: RunState,
        ranks: Ranks,
        between: Callable[[MicroBatchDone], None],
        before_update: Callable[[], object],
        logits: LogitMonitor,
    ) -> None:
        self._backend = backend
        self._state = state
        self._ranks = ranks
        self._between = between
        self._before_update = before_update
        self._logits = logits

    def run(self, step: int) -> Done | NotFinite | OutOfMemory:
        """Do step number ``step`` on this rank's share of its sequences.

        After ``NotFinite`` and ``OutOfMemory`` nothing but gradients may be left of it, unless the error came from the
        optimizer: then weights may be half updated.
        """
        return catch_oom(partial(self._run, step), self._backend.phases)

    def _run(self, step: int) -> Done | NotFinite:
        spec, batch, ranks = self._state.spec, self._state.spec.batch, self._ranks
        clock = self._state.clock
        begun = clock.now()
        sequences, cursor = self._state.read_batch()
        share = batch.sequences // ranks.size
        own = sequences[ranks.rank * share :][:share]
        tokens = max(1, self._state.count_targets(sequences))
        data_s = clock.now() - begun
        starts = range(0, share, batch.micro)
        self._logits.begin_step(step)
        for launched, first in enumerate(starts):
            if launched:
                done = self._backend.finished()
                tokens_done = ranks.size * done * batch.micro * batch.context
                self._between(MicroBatchDone(done, len(starts), tokens_done / (clock.now() - begun)))
            last = launched == len(starts) - 1
            self._backend.accumulate(own[first : first + batch.micro], tokens, last)
        loss, grad_norm = self._backend.window_totals()
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            return NotFinite(loss, grad_norm, cursor)
        attn_logit = self._logits.end_step()
        self._before_update()
        lr = spec.optim.lr_scale * learning_rate(spec.optim, step, spec.train.steps)
        self._backend.optimizer_step(lr, spec.optim.clip)
        return Done(loss, grad_norm, lr, cursor, data_s, clock.now() - begun, attn_logit)
