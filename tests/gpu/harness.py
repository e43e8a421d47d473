"""What the GPU tables share: the specs of the grid and steps on random tokens, with the real backend."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from engine.train.torch_backend import TorchBackend
from profiles.registry import load
from profiles.spec import RunSpec

GIB = 1 << 30


def grid() -> Iterator[RunSpec]:
    """mla-1b on the device alone: micro, context and what is recomputed."""
    for context, micros in ((512, (1, 4, 16)), (2048, (1, 2, 4, 12)), (8192, (1, 2)), (16384, (1,))):
        for micro in micros:
            for checkpointing in ("none", "full"):
                yield spec(micro, context, checkpointing)


def spec(micro: int, context: int, checkpointing: str, model: str = "mla-1b") -> RunSpec:
    base = load("gpu_fast", [f"model.name={model}", f"micro={micro}", f"sequences={micro}", f"context={context}"])
    return replace(base, memory=replace(base.memory, checkpointing=checkpointing))


def cap(gib: int) -> None:
    """Let this process take ``gib`` GiB of the card, no more."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, gib * GIB / total))


def steps(backend: TorchBackend, run: RunSpec, count: int) -> None:
    """``count`` optimizer steps on random tokens."""
    generator = np.random.default_rng(0)
    shape = (run.batch.micro, run.batch.context + 1)
    for _ in range(count):
        backend.accumulate(generator.integers(0, run.model.config.vocab_size, shape), run.tokens_per_step)
        backend.totals()
        backend.apply(1e-4, 1.0)
    torch.cuda.synchronize()
