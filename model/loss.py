"""Next-token loss: the cross entropy summed over tokens, in nats, never below float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.transformer import MLATransformer
from profiles.errors import SpecError

LossKind = Literal["plain", "fused"]
Loss = Callable[[MLATransformer, Tensor, Tensor], Tensor]

# 1024 tokens of a 32768-word vocabulary are 128 MiB of fp32 logits: large enough for full-speed matmuls, small enough
# to disappear beside the activations.
CHUNK_TOKENS = 1024


def resolve_loss(kind: LossKind) -> Loss:
    """The function ``loss(model, inputs_BT, targets_BT) -> scalar`` behind a name; asked for once, at the start.

    The loss is a sum over the B*T targets (divide by the tokens of the step), in float32, or float64 for a float64
    model. "plain" holds the logits of all tokens; "fused" holds those of CHUNK_TOKENS at a time, in the forward and in
    the backward pass, at the price of a second head matmul. Both give the same number up to rounding.

    Raises SpecError for an unknown kind.
    """
    if kind not in _LOSSES:
        raise SpecError(f"memory.loss: {kind!r} is not one of {', '.join(_LOSSES)}")
    return _LOSSES[kind]


def _plain(model: MLATransformer, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
    return _head_loss(model.lm_head, model.hidden(inputs_BT).flatten(0, 1), targets_BT.flatten())


def _fused(model: MLATransformer, inputs_BT: Tensor, targets_BT: Tensor) -> Tensor:
    x_ND, targets_N = model.hidden(inputs_BT).flatten(0, 1), targets_BT.flatten()
    total = x_ND.new_zeros((), dtype=torch.promote_types(x_ND.dtype, torch.float32))
    for x_CD, targets_C in zip(torch.split(x_ND, CHUNK_TOKENS), torch.split(targets_N, CHUNK_TOKENS), strict=True):
        total = total + checkpoint(
            _head_loss, model.lm_head, x_CD, targets_C, use_reentrant=False, preserve_rng_state=False
        )
    return total


def _head_loss(head: nn.Module, x_ND: Tensor, targets_N: Tensor) -> Tensor:
    logits_NV: Tensor = head(x_ND)
    wide = torch.promote_types(logits_NV.dtype, torch.float32)
    return F.cross_entropy(logits_NV.to(wide), targets_N, reduction="sum")


_LOSSES: dict[str, Loss] = {"plain": _plain, "fused": _fused}
