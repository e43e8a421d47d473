"""Computes the learning rate of a step: linear warm-up, then half a cosine (arXiv:1608.03983) down to ``final_lr``."""

from __future__ import annotations

import math

from profiles.spec import OptimTable


def learning_rate(optim: OptimTable, step: int, steps: int) -> float:
    """Return the rate of optimizer step ``step`` of ``steps``, both counted from 1."""
    if step <= optim.warmup:
        return optim.lr * step / optim.warmup
    progress = (step - optim.warmup) / max(1, steps - optim.warmup)
    return optim.final_lr + (optim.lr - optim.final_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
