"""Evaluates the validation split, in smaller pieces where memory does not suffice for a whole batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from engine.train.backends.backend import Backend, Batch
from engine.train.backends.ranks import Ranks
from engine.train.oom.handler import GiveUp, OomHandler
from engine.train.oom.recognize import OutOfMemory, catch_oom
from engine.train.run_state import RunState
from profiles.errors import UserError


class Validator:
    """``between`` is called after every batch; what it raises ends the validation."""

    def __init__(
        self, backend: Backend, state: RunState, ranks: Ranks, oom: OomHandler, between: Callable[[], None]
    ) -> None:
        self._backend = backend
        self._state = state
        self._ranks = ranks
        self._oom = oom
        self._between = between
        self._rows = state.spec.batch.micro  # sequences at once

    def run(self) -> tuple[float, int]:
        """The mean loss over the validation tokens of all ranks, and how many these are. Raises ``UserError``."""
        total = 0.0
        batches, ranks = self._state.val_batches, self._ranks
        tokens = sum(batch.shape[0] for batch in batches) * self._state.spec.batch.context
        for first in range(0, len(batches), ranks.size):
            for batch in batches[first + ranks.rank :][:1]:
                total += self._summed_loss(batch)
            self._between()
        return ranks.sum_over_ranks(total) / tokens, tokens

    def _summed_loss(self, batch: Batch) -> float:
        while isinstance(found := catch_oom(partial(self._evaluate, batch), self._backend.phases), OutOfMemory):
            self._backend.empty_cache()
            decision = self._oom.decide_validation(found, self._state.spec, self._rows)
            if isinstance(decision, GiveUp):
                raise UserError(decision.error)
            self._rows = decision
        return found

    def _evaluate(self, batch: Batch) -> float:
        rows = self._rows
        return sum(self._backend.evaluate(batch[first : first + rows]) for first in range(0, len(batch), rows))
