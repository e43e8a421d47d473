"""What the device's matmuls reach at the shapes of a model: the ceiling a training step is held against."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from model.flops import Product, products
from profiles.model_config import ModelConfig

# The rate of a product no longer rises beyond this many rows, and the operands must fit beside nothing else.
MOST_TOKENS = 16384
BATCH_SECONDS = 0.02  # long beside a clock's reading and beside the launch of a kernel
LEAST_ROUNDS = 3
FORMS = ("forward", "input gradient", "weight gradient")


@dataclass(frozen=True, slots=True)
class Timed:
    """One matrix product of the step: a linear layer in one of its ``FORMS``, and how long one took (median)."""

    product: Product
    form: str
    tokens: int
    seconds: float

    @property
    def flop_s(self) -> float:
        return 2 * self.tokens * self.product.inputs * self.product.outputs / self.seconds


def matmul_ceiling(
    config: ModelConfig, tokens: int, dtype: torch.dtype, device: str, seconds: float
) -> tuple[float, list[Timed]]:
    """FLOP/s of all matrix products of a micro-batch of ``tokens`` tokens done one after the other, nothing between.

    The total of their FLOPs over the total of their times: every linear layer, head included, in the forward pass and
    for both gradients, in ``dtype``. Attention is no part of it. About ``seconds`` are spent, divided between the
    distinct products.
    """
    tokens = min(tokens, MOST_TOKENS)
    shapes = products(config)
    share = seconds / (len(shapes) * len(FORMS))
    timed = [row for product in shapes for row in time_forms(product, tokens, dtype, device, share)]
    flops = sum(2 * row.tokens * row.product.inputs * row.product.outputs * row.product.times for row in timed)
    return flops / sum(row.seconds * row.product.times for row in timed), timed


def time_forms(product: Product, tokens: int, dtype: torch.dtype, device: str, seconds: float) -> list[Timed]:
    """A product in each of its ``FORMS``, about ``seconds`` spent on each."""
    # Random numbers: products of zeros draw less power and run faster than a training step's.
    x_TI = torch.randn(tokens, product.inputs, dtype=dtype, device=device)
    w_OI = torch.randn(product.outputs, product.inputs, dtype=dtype, device=device)
    y_TO = torch.randn(tokens, product.outputs, dtype=dtype, device=device)
    forms: tuple[Callable[[], torch.Tensor], ...] = (lambda: x_TI @ w_OI.T, lambda: y_TO @ w_OI, lambda: y_TO.T @ x_TI)
    return [
        Timed(product, name, tokens, _median_seconds(form, device, seconds))
        for name, form in zip(FORMS, forms, strict=True)
    ]


def _median_seconds(run: Callable[[], object], device: str, budget: float) -> float:
    """The median time of one ``run`` of many, queued in batches long enough to hide what launching them costs."""

    def clock(times: int) -> float:
        begun = time.perf_counter()
        for _ in range(times):
            run()
        synchronize(device)
        return (time.perf_counter() - begun) / times

    clock(2)  # the first call picks a kernel
    batch = max(1, min(1000, round(BATCH_SECONDS / clock(1))))
    rounds: list[float] = []
    deadline = time.perf_counter() + budget
    while len(rounds) < LEAST_ROUNDS or time.perf_counter() < deadline:
        rounds.append(clock(batch))
    return statistics.median(rounds)


def synchronize(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
