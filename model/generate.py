"""Generates text from a prompt, one token at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.latent_cache import LatentCache, forward_cached
from model.transformer import MLATransformer
from profiles.errors import SpecError, UserError


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a token is sampled: temperature 0 takes the most likely one.

    Otherwise from the smallest set of most likely tokens with a total probability of ``top_p`` (nucleus sampling,
    arXiv:1904.09751), on the CPU, so that a seed gives the same text on every device.

    Raises SpecError for a value out of range.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        # "not (…)" so that a NaN is refused too
        if not (0 <= self.temperature < float("inf")):
            raise SpecError(f"temperature: {self.temperature} is not a finite number from 0 up")
        if not (0 < self.top_p <= 1):
            raise SpecError(f"top_p: {self.top_p} is not above 0 and at most 1")
        if not (0 <= self.seed < 2**63):
            raise SpecError(f"seed: {self.seed} is not in 0..{2**63 - 1}")


def generate(
    model: MLATransformer,
    prompt_ids: Sequence[int],
    max_new: int,
    cache: LatentCache,
    sampling: Sampling,
    eot: int | None = None,
) -> Iterator[int]:
    """Yield up to ``max_new`` token ids that continue ``prompt_ids``, and stop before the first ``eot``.

    ``cache`` (batch 1; cleared first) limits the context: the model sees the last ``cache.context`` tokens of the
    prompt. When the cache is full, its later half is read again from position 0, as in training, and generation
    continues: every token past the context is sampled from at least half a context.

    Raises UserError, at the call, for an empty prompt or an id outside the vocabulary.
    """
    vocab = model.config.vocab_size
    if not prompt_ids:
        raise UserError("prompt: is empty; give at least one token")
    for token in prompt_ids:
        if not 0 <= token < vocab:
            raise UserError(f"prompt: token id {token} is not in 0..{vocab - 1}; it was made with another tokenizer")
    return _stream(model, prompt_ids, max_new, cache, sampling, eot)


def _stream(
    model: MLATransformer,
    prompt_ids: Sequence[int],
    max_new: int,
    cache: LatentCache,
    sampling: Sampling,
    eot: int | None,
) -> Iterator[int]:
    generator = torch.Generator("cpu").manual_seed(sampling.seed)
    recent = deque(prompt_ids, maxlen=max(1, cache.context // 2))
    unread = list(prompt_ids[-cache.context :])
    cache.clear()
    for _ in range(max_new):
        if cache.full:
            cache.clear()
            unread = list(recent)
        token = _sample(_next_logits(model, unread, cache), sampling, generator)
        if token == eot:
            return
        yield token
        recent.append(token)
        unread = [token]


@torch.no_grad()
def _next_logits(model: MLATransformer, unread: list[int], cache: LatentCache) -> Tensor:
    """Return the logits of the token after ``unread``, float32 (V,) on the CPU. Only one position uses the head."""
    tokens_BT = torch.tensor([unread], dtype=torch.int64, device=model.lm_head.weight.device)
    logits_BV: Tensor = model.lm_head(forward_cached(model, tokens_BT, cache)[:, -1])
    return logits_BV[0].float().cpu()


def _sample(logits_V: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    if sampling.temperature == 0:
        return int(logits_V.argmax())
    # In float64 and relative to the maximum, so that a tiny temperature neither overflows nor divides by zero.
    scaled_V = (logits_V.double() - logits_V.max()) / sampling.temperature
    probs_V, order_V = scaled_V.softmax(-1).sort(descending=True)
    before_V = probs_V.cumsum(-1) - probs_V
    probs_V = probs_V.where(before_V < sampling.top_p, 0.0)
    return int(order_V[torch.multinomial(probs_V, 1, generator=generator)])
