"""Evaluates the validation split, in smaller pieces where memory does not suffice for a whole batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from engine.events.types import Val
from engine.train.backends.backend import Backend, Batch
from engine.train.backends.ranks import Ranks
from engine.train.oom.handler import GiveUp, OomHandler
from engine.train.oom.recognize import OutOfMemory, catch_oom
from engine.train.run_state import RunState
from profiles.errors import UserError


@dataclass(frozen=True, slots=True)
class Validation:
    """The mean ``loss`` of ``tokens`` tokens; of a mixture also that of each of the ``sources``.

    ``bits_per_byte``: the loss in bits per byte of text, which tokenizers do not change; None if the bytes are unknown.
    """

    loss: float
    bits_per_byte: float | None
    tokens: int
    sources: dict[str, float]

    def to_record(self, step: int) -> Val:
        """Return the record of this validation after ``step``."""
        return Val(
            step=step,
            loss=self.loss,
            bucket="val",
            tokens=self.tokens,
            bits_per_byte=self.bits_per_byte,
            sources={**self.sources} or None,
        )


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

    def run(self) -> Validation:
        """Return the mean loss over the validation tokens of all ranks. Raises ``UserError``."""
        found = {source: self._run(batches) for source, batches in self._state.val_batches.items() if batches}
        tokens = sum(count for _, count in found.values())
        sources = {source: total / count for source, (total, count) in found.items() if source}
        total = sum(total for total, _ in found.values())
        return Validation(total / tokens, self._bits_per_byte(total, found), tokens, sources)

    def _bits_per_byte(self, total: float, found: dict[str, tuple[float, int]]) -> float | None:
        size, per_token = 0.0, self._state.val_bytes_per_token
        for source, (_, tokens) in found.items():
            if (of_source := per_token[source]) is None:
                return None
            size += tokens * of_source
        return total / math.log(2) / size

    def _run(self, batches: list[Batch]) -> tuple[float, int]:
        """Return the summed loss over the tokens of ``batches`` that count, on all ranks, and how many these are."""
        total, ranks = 0.0, self._ranks
        tokens = max(1, sum(self._state.count_targets(batch) for batch in batches))
        for first in range(0, len(batches), ranks.size):
            for batch in batches[first + ranks.rank :][:1]:
                total += self._summed_loss(batch)
            self._between()
        return ranks.sum_over_ranks(total), tokens

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
