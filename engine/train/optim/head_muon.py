"""Steps matrices by Muon, and the projections of an MLA's heads head by head.

A momentum is orthogonalized by Newton-Schulz iterations (kellerjordan.github.io/posts/muon). Where a matrix holds the
projections of several heads, each head's is a matrix of its own: orthogonalized together, heads with small gradients
would take steps as if they had the largest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from model.flops import NEWTON_SCHULZ_STEPS

MOMENTUM = 0.95  # with Nesterov's look ahead
RMS = 0.2  # of an update: that of AdamW's, so that both use one learning rate and one decay (arXiv:2502.16982, 2.2)
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
EPS = 1e-7


class HeadMuon:
    """Has ``param_groups`` and ``state`` as torch's optimizers; a group also has the ``names`` of its parameters.

    ``rows``: what ``head_rows`` of ``model/shapes.py`` returned. Between steps it keeps one fp32 momentum a parameter.
    """

    def __init__(self, groups: list[dict[str, Any]], rows: Mapping[str, tuple[int, ...]]) -> None:
        self.param_groups = groups
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        self._rows = rows

    @torch.no_grad()
    def step(self) -> None:
        """Step the parameters that have a gradient, at ``lr`` and ``weight_decay`` of their group."""
        for group in self.param_groups:
            lr = group["lr"]
            for name, parameter in zip(group["names"], group["params"], strict=True):
                if parameter.grad is None:
                    continue
                momentum = self._momentum_of(parameter).lerp_(parameter.grad, 1 - MOMENTUM)
                update = parameter.grad.lerp(momentum, MOMENTUM)
                parameter.mul_(1 - lr * group["weight_decay"])
                for matrices, updates in zip(self._parts(name, parameter), self._parts(name, update), strict=True):
                    size = RMS * max(matrices.shape[-2:]) ** 0.5
                    matrices.add_(orthogonalized(updates), alpha=-lr * size)

    def _momentum_of(self, parameter: Tensor) -> Tensor:
        if parameter not in self.state:
            self.state[parameter] = {"momentum_buffer": torch.zeros_like(parameter)}
        return self.state[parameter]["momentum_buffer"]

    def _parts(self, name: str, tensor: Tensor) -> tuple[Tensor, ...]:
        """Return views of shape (heads, rows, columns) of what is orthogonalized by itself; a whole is one head."""
        rows = self._rows.get(name.removesuffix(".weight").rpartition(".")[2])
        if rows is None:
            return (tensor.unsqueeze(0),)
        return torch.split(tensor.view(-1, sum(rows), tensor.shape[1]), [*rows], 1)


def orthogonalized(matrices: Tensor) -> Tensor:
    """Return for each of ``matrices`` (n, rows, columns) the nearest one whose singular values are about 1.

    Takes ``NEWTON_SCHULZ_STEPS`` Newton-Schulz iterations in bf16, which leave singular values between 0.7 and 1.2.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.to(torch.bfloat16)
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=EPS)
    a, b, c = COEFFICIENTS
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)
