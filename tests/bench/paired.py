"""Times training steps alternately, so that other load on the machine affects all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from engine.train.backends.torch_backend import TorchBackend
from profiles.registry import load
from profiles.spec import RunSpec

Batch = npt.NDArray[np.int64]
Step = Callable[[Batch], float]  # takes one optimizer step and returns its loss

MICRO, CONTEXT, VOCABULARY = 4, 512, 8192
# 8 layers of width 512, 31 million parameters: small enough for a CPU.
SHAPE = [
    *("model.hidden_size=512", "model.num_hidden_layers=8", "model.num_attention_heads=8"),
    *("model.qk_nope_head_dim=32", "model.qk_rope_head_dim=32", "model.v_head_dim=64", "model.kv_lora_rank=128"),
    *("model.intermediate_size=1408", f"model.vocab_size={VOCABULARY}"),
    *(f"sequences={MICRO}", f"micro={MICRO}", f"context={CONTEXT}", "train.precision=bf16", "optim.name=adamw"),
]
OFF = ["train.compile=off", "train.attention=sdpa", "memory.loss=plain"]
AUTO = ["train.compile=auto", "train.attention=auto", "memory.loss=fused"]


def spec(*overrides: str) -> RunSpec:
    return load("cpu_demo", [*SHAPE, *overrides])


def step_of(backend: TorchBackend, spec: RunSpec) -> Step:
    def step(batch: Batch) -> float:
        backend.accumulate(batch, spec.tokens_per_step, last=True)
        loss, _ = backend.window_totals()
        backend.optimizer_step(1e-4, 1.0)
        return loss

    return step


def ours(*overrides: str) -> Step:
    return step_of(TorchBackend(spec(*overrides)), spec(*overrides))


def compare(steps: dict[str, Step], rounds: int) -> None:
    """Print the median tokens/s of each, and its speed relative to the first (median of the rounds' ratios)."""
    batch = np.random.default_rng(0).integers(0, VOCABULARY, (MICRO, CONTEXT + 1))
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        for _ in range(2):  # the first compiles
            step(batch)
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step(batch)
            seconds[name].append(time.perf_counter() - start)
    print(f"{MICRO} x {CONTEXT} tokens, {torch.get_num_threads()} threads, torch {torch.__version__}, {rounds} rounds")
    base, *_ = seconds.values()
    for name, taken in seconds.items():
        ratios = sorted(there / here for there, here in zip(base, taken, strict=True))
        relative = f"{statistics.median(ratios):5.3f} x  ({ratios[0]:.2f} .. {ratios[-1]:.2f})"
        print(f"{name:34}{MICRO * CONTEXT / statistics.median(taken):8,.0f} tokens/s  {relative}", flush=True)
