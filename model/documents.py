"""Tells the documents of packed sequences apart, so that none sees another (``data.documents = "mask"``).

An end-of-text token ends its document and belongs to it. A token attends to itself and to those before it in its own
document; rotary positions are relative, so they need no reset. What follows an end-of-text token is not predicted from
it: that target does not count for the loss.
"""

from __future__ import annotations

import torch
from torch import Tensor

NOT_COUNTED = -100  # a target that is no part of the loss: cross_entropy's ignore_index


def document_ids(tokens_BT: Tensor, end: int) -> Tensor:
    """Return the number of each token's document within its sequence, (B, T) int32; ``end``: the end-of-text id."""
    ends_BT = tokens_BT == end
    return ends_BT.cumsum(-1, dtype=torch.int32) - ends_BT.to(torch.int32)


def counted_targets(inputs_BT: Tensor, targets_BT: Tensor, end: int | None) -> Tensor:
    """Return the targets, with ``NOT_COUNTED`` for those of another document than their input."""
    return targets_BT if end is None else targets_BT.masked_fill(inputs_BT == end, NOT_COUNTED)


def attention_bias(ids_BT: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what sdpa adds to its scores: 0 where a token may attend, else -inf; (B, 1, T, T) in ``dtype``."""
    batch, tokens = ids_BT.shape
    future_TT = torch.ones(tokens, tokens, dtype=torch.bool, device=ids_BT.device).triu_(1)
    bias_B1TT = torch.zeros(batch, 1, tokens, tokens, dtype=dtype, device=ids_BT.device)
    for bias_1TT, ids_T in zip(bias_B1TT, ids_BT, strict=True):  # one by one: the conditions of all need half as much
        bias_1TT.masked_fill_(future_TT | (ids_T[:, None] != ids_T), float("-inf"))
    return bias_B1TT
