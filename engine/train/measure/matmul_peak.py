"""Measures the FLOP/s that the device's matmuls reach at a model's shapes, to compare a training step with."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from model.flops import Product, products
from profiles.model_config import ModelConfig

# More rows make a product no faster, and its operands must fit in memory.
MAX_TOKENS = 16384
BATCH_SECONDS = 0.02  # long compared with reading the clock and launching a kernel
MIN_ROUNDS = 3
MATMUL_KINDS = ("forward", "input gradient", "weight gradient")


@dataclass(frozen=True, slots=True)
class TimedMatmul:
    """A matrix product of a linear layer, one of ``MATMUL_KINDS``, and its median time."""

    product: Product
    kind: str
    tokens: int
    seconds: float

    @property
    def flop_s(self) -> float:
        return 2 * self.tokens * self.product.inputs * self.product.outputs / self.seconds


def matmul_peak(
    config: ModelConfig, tokens: int, dtype: torch.dtype, device: str, seconds: float
) -> tuple[float, list[TimedMatmul]]:
    """Return the FLOP/s of all matrix products of a micro-batch of ``tokens`` tokens, and the time of each.

    It is the sum of their FLOPs divided by the sum of their times: every linear layer and the head, forward and both
    gradients, in ``dtype``, without attention. Takes about ``seconds``, divided among the distinct products.
    """
    tokens = min(tokens, MAX_TOKENS)
    shapes = products(config)
    each = seconds / (len(shapes) * len(MATMUL_KINDS))
    timed = [row for product in shapes for row in time_matmul(product, tokens, dtype, device, each)]
    flops = sum(2 * row.tokens * row.product.inputs * row.product.outputs * row.product.times for row in timed)
    return flops / sum(row.seconds * row.product.times for row in timed), timed


def time_matmul(product: Product, tokens: int, dtype: torch.dtype, device: str, seconds: float) -> list[TimedMatmul]:
    """Time a product as each of ``MATMUL_KINDS``, for about ``seconds`` each."""
    runs = (_mlx_runs if device == "mlx" else _torch_runs)(product, tokens, dtype, device)
    return [
        TimedMatmul(product, kind, tokens, _median_seconds(run, device, seconds))
        for kind, run in zip(MATMUL_KINDS, runs, strict=True)
    ]


# The operands are random, because products of zeros draw less power and run faster than those of a training step.


def _torch_runs(product: Product, tokens: int, dtype: torch.dtype, device: str) -> tuple[Callable[[], object], ...]:
    x_TI = torch.randn(tokens, product.inputs, dtype=dtype, device=device)
    w_OI = torch.randn(product.outputs, product.inputs, dtype=dtype, device=device)
    y_TO = torch.randn(tokens, product.outputs, dtype=dtype, device=device)
    return lambda: x_TI @ w_OI.T, lambda: y_TO @ w_OI, lambda: y_TO.T @ x_TI


def _mlx_runs(product: Product, tokens: int, dtype: torch.dtype, device: str) -> tuple[Callable[[], object], ...]:
    import mlx.core as mx

    kind = mx.bfloat16 if dtype == torch.bfloat16 else mx.float32
    x_TI = mx.random.normal((tokens, product.inputs), dtype=kind)
    w_OI = mx.random.normal((product.outputs, product.inputs), dtype=kind)
    y_TO = mx.random.normal((tokens, product.outputs), dtype=kind)
    mx.eval(x_TI, w_OI, y_TO)
    queue: Callable[..., object] = mx.async_eval
    return lambda: queue(x_TI @ w_OI.T), lambda: queue(y_TO @ w_OI), lambda: queue(y_TO.T @ x_TI)


def _median_seconds(run: Callable[[], object], device: str, budget: float) -> float:
    """Return the median time of one ``run``, queued in batches long enough to hide the cost of launching them."""

    def clock(times: int) -> float:
        start = time.perf_counter()
        for _ in range(times):
            run()
        synchronize(device)
        return (time.perf_counter() - start) / times

    clock(2)  # the first call picks a kernel
    batch = max(1, min(1000, round(BATCH_SECONDS / clock(1))))
    rounds: list[float] = []
    deadline = time.perf_counter() + budget
    while len(rounds) < MIN_ROUNDS or time.perf_counter() < deadline:
        rounds.append(clock(batch))
    return statistics.median(rounds)


def synchronize(device: str) -> None:
    """Wait until the device has finished its queued work."""
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mlx":
        import mlx.core as mx

        mx.synchronize()
