"""Logs what every rank measured in a step, so that one that is slow, waits or is full can be seen."""

from __future__ import annotations

import psutil

from engine.events.types import RankStats
from engine.train.backends.ranks import Ranks
from engine.train.reporter import Reporter
from engine.train.step_runner import Done
from profiles.spec import RunSpec

EVERY = 10.0  # seconds between two records


class RankMonitor:
    """Every rank has one and calls it after each step. With one rank it does nothing: its step records say it all."""

    def __init__(self, ranks: Ranks, reporter: Reporter) -> None:
        self._ranks = ranks
        self._reporter = reporter
        self._next_step = 0

    def record_step(self, spec: RunSpec, step: int, done: Done, peak: int | None) -> None:
        """Take in a step that was done; ``peak``: bytes that this rank's card held at most in it, if it has one."""
        if self._ranks.size == 1 or step < self._next_step:
            return
        memory = psutil.Process().memory_info().rss if peak is None else peak
        found = self._ranks.gather([float(memory), done.step_s, done.data_s])
        # From what all of them have received, so that they agree when to gather again without a word.
        self._next_step = step + max(1, round(EVERY / found[0][1]))
        share = spec.tokens_per_step / self._ranks.size
        self._reporter.record(
            RankStats(
                step=step,
                memory=[int(memory) for memory, _, _ in found],
                tok_s=[share / step_s for _, step_s, _ in found],
                data_s=[data_s for _, _, data_s in found],
            )
        )
