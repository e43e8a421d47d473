"""Keeps an exponential moving average of the weights in host memory (``optim.ema``), beside the weights that train.

In a checkpoint it is the file ``ema.safetensors``, named as the weights, and the tensor ``ema_steps`` of the optimizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

# Steps between two updates, each with the decay of so many steps: next to one per step no difference is seen in an
# average over hundreds of steps, and it costs a tenth.
EVERY = 10
STEPS = "ema_steps"


class WeightAverage:
    """``tensors`` are fp32 in host memory and become the average of the weights with their keys."""

    def __init__(self, decay: float, tensors: dict[Any, Tensor]) -> None:
        self.tensors = tensors
        self._decay = decay**EVERY
        self._steps = 0

    @property
    def exists(self) -> bool:
        """Whether there have been weights to average."""
        return self._steps >= EVERY

    @torch.no_grad()
    def add_step(self, weights: Mapping[Any, Tensor]) -> None:
        """Count a step, after which the weights are ``weights``.

        The decay rises from 0, so that the average soon forgets how it began (tf.train.ExponentialMovingAverage).
        """
        self._steps += 1
        if self._steps % EVERY:
            return
        earlier = self._steps // EVERY - 1
        decay = min(self._decay, earlier / (earlier + 9))
        for key, average in self.tensors.items():
            average.lerp_(weights[key].detach().to("cpu", torch.float32), 1 - decay)

    def step_tensor(self) -> dict[str, Tensor]:
        """Return what a checkpoint stores besides the average."""
        return {STEPS: torch.tensor([self._steps])} if self.exists else {}

    def load_steps(self, optimizer: Mapping[str, Tensor]) -> bool:
        """Take over the steps of a checkpoint's ``optimizer``; return whether it has an average."""
        self._steps = int(optimizer[STEPS]) if STEPS in optimizer else 0
        return self.exists


def host_zeros(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors for the average of ``weights``."""
    return {name: torch.zeros(weight.shape, dtype=torch.float32, device="cpu") for name, weight in weights.items()}
