"""Computes the next-token loss: cross entropy summed over tokens, in nats, in float32 or wider.

Shape suffixes as in ``model.mla``; N is B * T tokens, C a chunk of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from model.documents import NOT_COUNTED, counted_targets
from model.transformer import MLATransformer
from profiles.errors import SpecError

LossKind = Literal["plain", "fused"]
Loss = Callable[[MLATransformer, Tensor, Tensor], Tensor]

# With a vocabulary of 32768, 1024 tokens have 128 MiB of fp32 logits: large enough for full-speed matmuls, small
# compared with the activations.
CHUNK_TOKENS = 1024


def resolve_loss(kind: LossKind, compiled: bool = False) -> Loss:
    """Return the function ``loss(model, inputs_BT, targets_BT) -> scalar`` of that name.

    The loss is the sum over the targets that count, all B*T unless ``model.document_end`` is set (divide by those of
    the step), in float32, or in float64 for a float64 model. "plain" saves the logits of all tokens for backward.
    "fused" computes the gradients of head and stream in the forward, CHUNK_TOKENS tokens at a time, so that the full
    logits never exist and no matmul runs twice. Both return the same number up to rounding. ``compiled`` fuses the
    passes over a chunk's logits.

    Raises SpecError for an unknown kind.
    """
    if kind == "plain":
        return _plain
    if kind == "fused":
        return _Fused(torch.compile(_normalize, dynamic=False) if compiled else _normalize)
    raise SpecError(f"memory.loss: {kind!r} is not one of plain, fused")


def _plain(model: MLATransformer, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
    logits_NV: Tensor = model.lm_head(model.hidden(inputs_BT).flatten(0, 1))
    wide = torch.promote_types(logits_NV.dtype, torch.float32)
    targets_BT = counted_targets(inputs_BT, targets_BT, model.document_end)
    return F.cross_entropy(logits_NV.to(wide), targets_BT.flatten(), reduction="sum", ignore_index=NOT_COUNTED)


class _Fused:
    def __init__(self, normalize: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        self._normalize = normalize

    def __call__(self, model: MLATransformer, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
        x_ND = model.hidden(inputs_BT).flatten(0, 1)
        # Inside an autograd.Function gradients are always disabled, so this is checked here.
        needs_grad = torch.is_grad_enabled()
        targets_N = counted_targets(inputs_BT, targets_BT, model.document_end).flatten()
        skips = model.document_end is not None
        loss: Tensor = _HeadLoss.apply(x_ND, model.lm_head.weight, targets_N, self._normalize, needs_grad, skips)  # type: ignore[no-untyped-call]
        return loss


class _HeadLoss(torch.autograd.Function):
    """The loss ends the graph, so its gradient is known with the logits, up to one factor.

    ``skips``: some targets are ``NOT_COUNTED``.
    """

    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, normalize: Any, needs_grad: bool, skips: bool
    ) -> Tensor:
        narrow_VD = weight_VD.to(x_ND.dtype)
        wide = torch.promote_types(x_ND.dtype, torch.float32)
        total = x_ND.new_zeros((), dtype=wide)
        grad_ND, grad_VD = (
            (torch.empty_like(x_ND), torch.zeros_like(weight_VD, dtype=wide)) if needs_grad else (None, None)
        )
        for first in range(0, len(x_ND), CHUNK_TOKENS):
            x_CD = x_ND[first : first + CHUNK_TOKENS]
            targets_C = targets_N[first : first + CHUNK_TOKENS]
            skipped_C = targets_C == NOT_COUNTED
            if skips:  # without an input they add nothing to the gradient of the head
                x_CD = x_CD.masked_fill(skipped_C[:, None], 0.0)
                targets_C = targets_C.masked_fill(skipped_C, 0)
            logits_CV = x_CD @ narrow_VD.t()
            logsum_C, grad_CV = normalize(logits_CV)
            rows_C = torch.arange(len(targets_C), device=targets_C.device)
            log_prob_C = logits_CV[rows_C, targets_C] - logsum_C
            if skips:
                log_prob_C = log_prob_C.masked_fill(skipped_C, 0.0)
            total -= log_prob_C.sum()
            if grad_ND is not None and grad_VD is not None:
                # Softmax minus one at the target, subtracted before rounding: near 1 rounding would lose the rest.
                grad_CV[rows_C, targets_C] = log_prob_C.expm1().to(grad_CV.dtype)
                torch.mm(grad_CV, narrow_VD, out=grad_ND[first : first + CHUNK_TOKENS])
                if skips:
                    grad_ND[first : first + CHUNK_TOKENS].masked_fill_(skipped_C[:, None], 0.0)
                grad_VD += grad_CV.t() @ x_CD
        ctx.gradients = grad_ND, grad_VD, weight_VD.dtype
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_ND, grad_VD, weight_dtype = ctx.gradients
        ctx.gradients = None  # scaled in place: they are as large as the head, so there is no second backward
        return grad_ND.mul_(grad), grad_VD.mul_(grad).to(weight_dtype), None, None, None, None


def _normalize(logits_CV: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-sum-exp (C,) in float32 or wider, and the softmax in the dtype of the logits."""
    wide_CV = logits_CV.to(torch.promote_types(logits_CV.dtype, torch.float32))
    logsum_C1 = wide_CV.logsumexp(-1, keepdim=True)
    return logsum_C1.squeeze(1), (wide_CV - logsum_C1).exp().to(logits_CV.dtype)
