"""Handles weights in bf16 without fp32 masters: storage, gradient accumulation and stochastic rounding.

bf16 has 8 significant bits: rounding to nearest loses an update below 1/512 of a weight, and late in a run nearly all
are. Stochastic rounding, up or down with probability proportional to the rounded-off part, is right in expectation
(arXiv:2010.06192).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

LOW_BITS = 16  # of fp32 that bf16 does not have


def store_matrices_in_bf16(model: nn.Module) -> None:
    """Round the matrices of ``model`` to bf16. Norm scales, a thousandth of the parameters, stay in fp32."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data = parameter.data.to(torch.bfloat16)


def round_stochastically(narrow: Tensor, wide: Tensor) -> None:
    """Write fp32 ``wide`` into bf16 ``narrow``: each value is rounded to a neighbour, and right in expectation.

    Uses the device's default generator. Overwrites ``wide``. bf16 is the upper half of fp32: a random number added to
    the lower half carries over with the right probability.
    """
    bits = wide.view(torch.int32)
    bits += torch.randint(0, 1 << LOW_BITS, bits.shape, dtype=torch.int32, device=bits.device)
    bits &= -(1 << LOW_BITS)
    narrow.copy_(wide)


def sum_gradients_in_fp32(parameters: Iterable[nn.Parameter], whole_step: bool) -> None:
    """Set the precision in which backward accumulates the gradients of bf16 parameters. Call it without gradients.

    A single micro-batch (``whole_step``) needs no accumulation: its gradients stay in bf16. Several accumulate in fp32,
    because in bf16 a small gradient added to a large sum is lost.
    """
    for parameter in parameters:
        if parameter.dtype == torch.bfloat16:
            parameter.grad_dtype = torch.bfloat16 if whole_step else torch.float32


def gradient_norm(gradients: list[Tensor]) -> Tensor:
    """Return the norm of all gradients together, computed in fp32 or wider."""
    norms = [torch.linalg.vector_norm(g, dtype=torch.promote_types(g.dtype, torch.float32)) for g in gradients]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return norm
