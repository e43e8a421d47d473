"""Measures the largest attention logit of every head, on some queries of one sequence of a training forward.

A logit is a scaled score before the softmax. Logits that grow without bound come before many spikes of the loss
(arXiv:2309.14322, arXiv:2507.20534). Shape suffixes as in ``model.mla``; K is a piece of the keys, Y the queries.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

QUERIES = 256  # of one sequence
SCORES = 1 << 22  # at once, of all heads: 16 MiB in fp32


class LogitProbe:
    """Collects the largest logits of one forward; the decoder calls ``measure`` before each block.

    It reads what the block will read and computes queries and keys of its own, so the forward is the same with it.
    """

    def __init__(self) -> None:
        self._largest: list[Tensor] = []  # of each layer, (H,)

    @torch.no_grad()
    def measure(self, block: Any, x_BTD: Tensor, cos_T1P: Tensor, sin_T1P: Tensor, ids_BT: Tensor | None) -> None:
        """Measure the block's heads on its input ``x_BTD``, of which only the first sequence is used.

        ``ids_BT``: the documents of the tokens where none sees another.
        """
        x_1TD, attention = x_BTD[:1].detach(), block.self_attn
        tokens = x_1TD.shape[1]
        stride = -(-tokens // QUERIES)
        chosen = slice((tokens - 1) % stride, None, stride)  # evenly spaced, the last one among them
        place_Y = torch.arange(tokens, device=x_1TD.device)[chosen]
        normed_1YD = block.input_layernorm(x_1TD[:, chosen])
        q_1HYQ = attention.rotated_queries(normed_1YD, cos_T1P[chosen], sin_T1P[chosen]).transpose(1, 2)
        piece = max(1, SCORES // (attention.heads * len(place_Y)))
        largest_H = torch.full((attention.heads,), -torch.inf, device=x_1TD.device)
        for first in range(0, tokens, piece):
            keys = slice(first, min(first + piece, tokens))
            normed_1KD = block.input_layernorm(x_1TD[:, keys])
            k_1KHQ, _ = attention.rotated_keys_and_values(normed_1KD, cos_T1P[keys], sin_T1P[keys])
            scores_HYK = (q_1HYQ @ k_1KHQ.permute(0, 2, 3, 1))[0]
            hidden_YK = torch.arange(first, keys.stop, device=x_1TD.device) > place_Y[:, None]
            if ids_BT is not None:
                hidden_YK |= ids_BT[0, keys] != ids_BT[0, chosen, None]
            scores_HYK.masked_fill_(hidden_YK, -torch.inf)
            largest_H = torch.maximum(largest_H, scores_HYK.amax((1, 2)).float() * attention.scale)
        self._largest.append(largest_H)

    def largest(self) -> list[list[float]]:
        """Return the largest logit by layer and head; empty where nothing was measured. Waits for the device."""
        found: list[list[float]] = torch.stack(self._largest).tolist() if self._largest else []
        return found
