"""Steps parameters by torch's fused AdamW (arXiv:1711.05101), without the compiler that ``torch.optim`` imports.

Every ``torch.optim.Optimizer`` imports ``torch._dynamo`` when it is built, compiled or not: 1.2 s and 72 MB of a
trainer's start. The functional form, which those optimizers call too, does not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw


class FusedAdamW:
    """Has ``param_groups`` and ``state`` as ``torch.optim.AdamW`` with ``fused=True`` has them."""

    def __init__(self, groups: list[dict[str, Any]], betas: tuple[float, float], eps: float) -> None:
        self.param_groups = groups
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        self._betas = betas
        self._eps = eps

    @torch.no_grad()
    def step(self) -> None:
        """Step the parameters that have a gradient, at ``lr`` and ``weight_decay`` of their group."""
        beta1, beta2 = self._betas
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            states = [self._state_of(p) for p in parameters]
            adamw(
                parameters,
                [p.grad for p in parameters],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                [state["step"] for state in states],
                fused=True,
                amsgrad=False,
                beta1=beta1,
                beta2=beta2,
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=self._eps,
                maximize=False,
            )

    def _state_of(self, parameter: Tensor) -> dict[str, Tensor]:
        if parameter not in self.state:
            self.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        return self.state[parameter]
