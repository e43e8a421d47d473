"""Generates text from the prompts of the profile while a run trains, and logs it as ``sample`` records."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial

from data.splits import tokenizer_of
from data.tokenizer import load_tokenizer
from engine.events.types import Event, Sample
from engine.memory.between_steps import generation_bytes
from engine.memory.hardware import Hardware
from engine.train.backends.backend import Backend
from engine.train.models.end_token import end_token
from engine.train.run_state import RunState
from engine.train.timed_work import Budget, TimedWork
from model.generate import Sampling, generate
from model.latent_cache import LatentCache
from profiles.errors import UserError

PIECE = 8  # tokens between two looks at the clock and the commands
TEMPERATURE, TOP_P = 0.8, 0.95  # those of ``mla-tui sample``


class Sampler:
    """Samples are drawn with the seed of the run, so that a prompt's texts differ by what the model has learned."""

    def __init__(self, backend: Backend, state: RunState, hardware: Hardware, timed: TimedWork) -> None:
        self._backend = backend
        self._state = state
        self._hardware = hardware
        self._timed = timed

    def run(self, step: int) -> None:
        """Log a sample for each of ``train.sample_prompts``, or why there is none, within ``train.sample_seconds``."""
        train, context = self._state.spec.train, self._state.spec.batch.context
        longest = max(len(prompt.encode()) for prompt in train.sample_prompts)  # a token has at least a byte
        # A full cache is emptied, and half a context read again.
        read = longest if longest + train.sample_tokens <= context else max(longest, context // 2)
        needed = generation_bytes(self._state.spec, self._hardware, read)
        self._timed.run(f"samples of step {step}", partial(self._samples, step), train.sample_seconds, needed)

    def _samples(self, step: int, budget: Budget) -> Generator[Event | None, None, None]:
        model = self._backend.torch_model()
        if model is None:
            raise UserError(f"{self._backend.plan['backend']} has no model to sample from; set sample_every=0")
        spec = self._state.spec
        tokenizer = load_tokenizer(tokenizer_of(spec))
        end = end_token(self._state.to_facts(), tokenizer)
        cache = LatentCache(model, spec.batch.context)
        sampling = Sampling(TEMPERATURE, TOP_P, spec.train.seed)
        for prompt in spec.train.sample_prompts:
            begun = budget.clock.now()
            ids: list[int] = []
            start = tokenizer.encode(prompt).ids or [end or 0]
            for id in generate(model, start, spec.train.sample_tokens, cache, sampling, end):
                ids.append(id)
                if len(ids) % PIECE == 0:
                    yield None
                    if budget.over:
                        break
            yield Sample(
                step=step,
                prompt=prompt,
                text=tokenizer.decode(ids),
                tokens=len(ids),
                seconds=budget.clock.now() - begun,
                cut=budget.over,
            )
            if budget.over:
                return
