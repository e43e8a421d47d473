"""Scores the questions of the profile while a run trains, and logs the accuracy as an ``eval`` record."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from pathlib import Path
from statistics import fmean

from data.splits import tokenizer_of
from data.tokenizer import load_tokenizer
from engine.events.types import Eval, Event
from engine.memory.between_steps import generation_bytes
from engine.memory.hardware import Hardware
from engine.train.backends.backend import Backend
from engine.train.evaluation.benchmark import Benchmark, task_benchmark
from engine.train.evaluation.loaded import LoadedModel
from engine.train.evaluation.scoring import Answer, batches, score_batch
from engine.train.models.end_token import end_token
from engine.train.run_state import RunState
from engine.train.timed_work import Budget, TimedWork
from profiles.errors import UserError
from profiles.paths import expand


class Evaluator:
    """``accuracy`` is that of the newest complete evaluation, by which the best checkpoint may be kept."""

    def __init__(self, backend: Backend, state: RunState, hardware: Hardware, timed: TimedWork) -> None:
        self.accuracy: float | None = None
        self._backend = backend
        self._state = state
        self._hardware = hardware
        self._timed = timed

    def check(self) -> None:
        """Check that every question of ``train.eval_tasks`` can be scored. Raises ``UserError``."""
        train = self._state.spec.train
        if train.eval_every:
            loaded = self._loaded()
            for text in train.eval_tasks:
                task_benchmark(loaded, expand(text, "train.eval_tasks"), None, None)

    def run(self, step: int) -> None:
        """Score ``train.eval_tasks`` if it is time to, within ``train.eval_seconds``, or log why they were not."""
        spec = self._state.spec
        if spec.train.eval_every and step % spec.train.eval_every == 0:
            needed = generation_bytes(spec, self._hardware, spec.batch.context)  # batches have a context's tokens
            self._timed.run(f"evaluation of step {step}", partial(self._score, step), spec.train.eval_seconds, needed)

    def _score(self, step: int, budget: Budget) -> Generator[Event | None, None, None]:
        begun, loaded = budget.clock.now(), self._loaded()
        found: dict[str, dict[str, float]] = {}
        for text in self._state.spec.train.eval_tasks:
            one = task_benchmark(loaded, expand(text, "train.eval_tasks"), None, None)
            answers: dict[int, Answer] = {}
            for batch in batches(one.requests, loaded.context):
                answers |= zip(batch, score_batch(loaded.model, [one.requests[i] for i in batch]), strict=True)
                yield None
                if budget.over:
                    break
            if len(answers) < len(one.requests):  # the longest came first, so these say nothing about all
                break
            found[_name(one, found)] = one.metrics([answers[i] for i in range(len(answers))])
        cut = len(found) < len(self._state.spec.train.eval_tasks)
        if not cut:
            self.accuracy = fmean(metrics.get("acc_norm", metrics["acc"]) for metrics in found.values())
        yield Eval(
            step=step,
            accuracy=None if cut else self.accuracy,
            tasks={name: {**metrics} for name, metrics in found.items()},
            seconds=budget.clock.now() - begun,
            cut=cut,
        )

    def _loaded(self) -> LoadedModel:
        model, spec = self._backend.torch_model(), self._state.spec
        if model is None:
            raise UserError(f"{self._backend.plan['backend']} has no model to evaluate; set train.eval_every=0")
        path: Path = tokenizer_of(spec)
        tokenizer = load_tokenizer(path)
        return LoadedModel(
            model, tokenizer, spec.batch.context, end_token(self._state.to_facts(), tokenizer), str(path)
        )


def _name(one: Benchmark, found: dict[str, dict[str, float]]) -> str:
    """Return the name of the file, with a number where another file has it too."""
    return one.name if one.name not in found else f"{one.name} ({len(found) + 1})"
