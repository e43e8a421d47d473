"""Writing on from a prompt, one token at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from model.transformer import MLATransformer
from profiles.errors import UserError


def generate(
    model: MLATransformer,
    prompt_ids: Sequence[int],
    max_new: int,
    *,
    context: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    eot: int | None = None,
) -> Iterator[int]:
    """Yield up to ``max_new`` token ids that follow ``prompt_ids``; ends before the first ``eot``.

    The model sees the last ``context`` tokens and recomputes them for every new one. Temperature 0 takes the likeliest
    token; otherwise one is drawn from the smallest set of likeliest tokens that holds ``top_p`` of the probability
    (arXiv:1904.09751), on the CPU, so that a seed means the same on every device.

    Raises UserError, at the call, for an empty prompt, an id outside the vocabulary or a setting out of range.
    """
    vocab = model.config.vocab_size
    if not prompt_ids:
        raise UserError("prompt: it is empty; give at least one token to write on from")
    for token in prompt_ids:
        if not 0 <= token < vocab:
            raise UserError(f"prompt: token id {token} is not in 0..{vocab - 1}; it was made with another tokenizer")
    # "not (…)" so that a NaN is refused too
    if not (0 <= temperature < float("inf")):
        raise UserError(f"temperature: {temperature} is not a finite number from 0 up")
    if not (0 < top_p <= 1):
        raise UserError(f"top_p: {top_p} is not in (0, 1]")
    if context < 1:
        raise UserError(f"context: {context} is not at least 1")
    return _stream(model, list(prompt_ids), max_new, context, temperature, top_p, seed, eot)


def _stream(
    model: MLATransformer,
    ids: list[int],
    max_new: int,
    context: int,
    temperature: float,
    top_p: float,
    seed: int,
    eot: int | None,
) -> Iterator[int]:
    generator = torch.Generator("cpu").manual_seed(seed)
    for _ in range(max_new):
        token = _pick(_next_logits(model, ids[-context:]), temperature, top_p, generator)
        if token == eot:
            return
        ids.append(token)
        yield token


@torch.no_grad()
def _next_logits(model: MLATransformer, ids: list[int]) -> Tensor:
    """Logits of the token after ``ids``: float32 (V,) on the CPU. Only the last position goes through the head."""
    tokens_BT = torch.tensor([ids], dtype=torch.int64, device=model.lm_head.weight.device)
    logits_BV: Tensor = model.lm_head(model.hidden(tokens_BT)[:, -1])
    return logits_BV[0].float().cpu()


def _pick(logits_V: Tensor, temperature: float, top_p: float, generator: torch.Generator) -> int:
    if temperature == 0:
        return int(logits_V.argmax())
    # In float64 and from the greatest down, so that a tiny temperature neither overflows nor divides by zero.
    probs_V, order_V = ((logits_V.double() - logits_V.max()) / temperature).softmax(-1).sort(descending=True)
    before_V = probs_V.cumsum(-1) - probs_V
    probs_V = probs_V.where(before_V < top_p, 0.0)
    return int(order_V[torch.multinomial(probs_V, 1, generator=generator)])
