"""Weights kept in bf16 without fp32 masters: how they are stored, summed up and rounded.

bf16 has 8 significant bits: an update below 1/512 of a weight is lost when rounded to the nearest, and late in a run
nearly all are. Rounded up or down by chance, in proportion to what is cut off, they add up to the right sum
(arXiv:2010.06192).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

LOW_BITS = 16  # of fp32 that bf16 does not have


def store_matrices_in_bf16(model: nn.Module) -> None:
    """Round the matrices of ``model`` to bf16. Norm scales, one parameter in some thousand, stay as they are."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data = parameter.data.to(torch.bfloat16)


def round_into(narrow: Tensor, wide: Tensor) -> None:
    """Write fp32 ``wide`` into bf16 ``narrow``, each value to one of its two neighbours, right in expectation.

    The numbers are drawn from the device's default generator. ``wide`` is scratch: its bits are changed. bf16 is the
    upper half of fp32, so a random number added to the lower half carries over exactly as often as it should.
    """
    bits = wide.view(torch.int32)
    bits += torch.randint(0, 1 << LOW_BITS, bits.shape, dtype=torch.int32, device=bits.device)
    bits &= -(1 << LOW_BITS)
    narrow.copy_(wide)


def sum_gradients_in_fp32(parameters: Iterable[nn.Parameter], whole_step: bool) -> None:
    """Say in which precision backward sums the gradients of bf16 parameters: call it while they have none.

    A single micro-batch (``whole_step``) needs no sum, and its gradients stay as they come. Of several, each is added
    to an fp32 sum: in bf16 small gradients vanish beside what has gathered already.
    """
    for parameter in parameters:
        if parameter.dtype == torch.bfloat16:
            parameter.grad_dtype = torch.bfloat16 if whole_step else torch.float32


def gradient_norm(gradients: list[Tensor]) -> Tensor:
    """The norm of all gradients together, in fp32 whatever they are held in."""
    norms = [torch.linalg.vector_norm(g, dtype=torch.promote_types(g.dtype, torch.float32)) for g in gradients]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return norm
