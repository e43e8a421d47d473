"""Steps matrices by Muon, and the projections of an MLA's heads head by head.

A momentum is orthogonalized by Newton-Schulz iterations (kellerjordan.github.io/posts/muon). Where a matrix holds the
projections of several heads, each head's is a matrix of its own: orthogonalized together, heads with small gradients
would take steps as if they had the largest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from model.flops import NEWTON_SCHULZ_STEPS

MOMENTUM = 0.95  # with Nesterov's look ahead
RMS = 0.2  # of an update: that of AdamW's, so that both use one learning rate and one decay (arXiv:2502.16982, 2.2)
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
EPS = 1e-7


def is_for_muon(name: str, parameter: Tensor) -> bool:
    """Whether Muon steps the parameter: the matrices of the blocks.

    The rows of embedding and head are looked up or compared one by one; like norm scales they are AdamW's.
    """
    return name.startswith("model.layers.") and parameter.dim() == 2


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
                update = direction(parameter.grad, self._momentum_of(parameter))
                parameter.mul_(1 - lr * group["weight_decay"])
                halves = (head_matrices(self._rows, name, tensor) for tensor in (parameter, update))
                for matrices, updates in zip(*halves, strict=True):
                    matrices.add_(orthogonalized(updates), alpha=-lr * step_size(matrices))

    def _momentum_of(self, parameter: Tensor) -> Tensor:
        if parameter not in self.state:
            self.state[parameter] = {"momentum_buffer": torch.zeros_like(parameter)}
        return self.state[parameter]["momentum_buffer"]


def direction(gradient: Tensor, momentum: Tensor) -> Tensor:
    """Add ``gradient`` to ``momentum`` in place; return where to step, with Nesterov's look ahead."""
    momentum.lerp_(gradient, 1 - MOMENTUM)
    return gradient.lerp(momentum, MOMENTUM)


def head_matrices(rows: Mapping[str, tuple[int, ...]], name: str, tensor: Tensor) -> tuple[Tensor, ...]:
    """Return views of shape (heads, rows, columns) of what is orthogonalized by itself; a whole is one head."""
    parts = rows.get(name.removesuffix(".weight").rpartition(".")[2])
    if parts is None:
        return (tensor.unsqueeze(0),)
    return torch.split(tensor.view(-1, sum(parts), tensor.shape[1]), [*parts], 1)


def step_size(matrices: Tensor) -> float:
    """Return what the update of each of ``matrices`` (n, rows, columns) is multiplied by, besides the learning rate."""
    rows, columns = matrices.shape[-2:]
    return RMS * math.sqrt(max(rows, columns))


def iterate_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype in which ``device`` orthogonalizes: bf16, or fp32 on a CPU.

    Most CPUs have no units for bf16, and torch then multiplies batches of it 40 times slower than fp32.
    """
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def orthogonalized(matrices: Tensor) -> Tensor:
    """Return for each of ``matrices`` (n, rows, columns) the nearest one whose singular values are about 1.

    Takes ``NEWTON_SCHULZ_STEPS`` Newton-Schulz iterations, which leave singular values between 0.7 and 1.2, in the
    device's ``iterate_dtype``.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.to(iterate_dtype(matrices.device))
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=EPS)
    a, b, c = COEFFICIENTS
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)
