"""Predicts what a whole run costs before it starts: tokens, time, disk and energy."""

from __future__ import annotations

from dataclasses import dataclass

from engine.memory.search.speed import Rate
from engine.memory.states import checkpoint_bytes
from profiles.nvml import power_limit
from profiles.spec import RunSpec

_FORWARD = 1 / 3  # of the time of a token: its backward has two products for each of the forward


@dataclass(frozen=True, slots=True)
class RunCost:
    """``seconds``: with those of the ``validation``. ``disk``: bytes of checkpoints at most, the one being written
    included. ``kwh``: at the cards' power limit; None where no card reports one."""

    rate: Rate
    tokens: int
    seconds: float
    validation: float
    disk: int
    watts: float | None

    @property
    def kwh(self) -> float | None:
        return None if self.watts is None else self.watts * self.seconds / 3.6e6


def run_cost(spec: RunSpec, rate: Rate, *, here: bool) -> RunCost:
    """Return the cost of ``spec``, whose settings are all chosen, at ``rate``. ``here``: on this machine's cards."""
    steps = spec.train.last_step
    tokens = steps * spec.tokens_per_step
    saved = (spec.train.keep + 1) * checkpoint_bytes(spec)
    watts = power_limit(spec.launch.gpus_per_node) if here else None
    validation = _validated_tokens(spec) * _FORWARD / rate.tok_s
    return RunCost(rate, tokens, tokens / rate.tok_s + validation, validation, saved, watts)


def _validated_tokens(spec: RunSpec) -> int:
    """Return the tokens that the validations of a whole run read at most: before its first step and at its end too."""
    every, steps = spec.train.val_every, spec.train.last_step
    times = 1 + -(-steps // every) if every else 0
    return times * spec.train.val_sequences * spec.batch.context
