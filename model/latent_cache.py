"""Caches the latent and the rotated key of each token for generation; all heads share them.

Prefill reads the prompt with the ordinary forward; decode then adds one token at a time from the cache alone. Decode
never rebuilds keys and values: with k = U latent, the score q·(U latent) is (Uᵀ q)·latent, so each head's part of
``kv_b_proj`` is applied to the query and, for the values, after the weighted sum (DeepSeek-V2, arXiv:2405.04434,
section 2.1.2). C = L + R is the width of a cache entry and S the number of entries; other suffixes as in ``model.mla``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.mla import MLAttention
from model.rope import rope_tables, rotate
from model.transformer import Block, MLATransformer


class LatentCache:
    """The latents and rotated keys of up to ``context`` tokens of ``batch`` texts, for every layer of ``model``.

    Allocated once, on the model's device and in its dtype. ``clear`` prepares it for another text.
    """

    def __init__(self, model: MLATransformer, context: int, batch: int = 1) -> None:
        config, like = model.config, model.lm_head.weight
        shape = (batch, context, config.cached_values_per_token)
        self.context = context
        self.length = 0
        self.layers_BSC = [like.new_empty(shape, requires_grad=False) for _ in range(config.num_hidden_layers)]
        self.cos_S1P, self.sin_S1P = rope_tables(config, context, like)

    @property
    def bytes(self) -> int:
        """The size of the cache's tensors, filled or not."""
        return sum(cached_BSC.nbytes for cached_BSC in self.layers_BSC)

    @property
    def full(self) -> bool:
        return self.length == self.context

    def clear(self) -> None:
        self.length = 0


@torch.no_grad()
def forward_cached(model: MLATransformer, tokens_BT: Tensor, cache: LatentCache) -> Tensor:
    """Run the model on tokens that follow those in ``cache`` and add them to it; return the hidden states (B, T, D).

    Up to rounding they equal those of ``model.hidden`` at these positions of the whole text. Raises ValueError where
    the cache is full.
    """
    start, end = cache.length, cache.length + tokens_BT.shape[1]
    if end > cache.context:
        raise ValueError(f"{end} tokens do not fit a cache of {cache.context}")
    tables = cache.cos_S1P[start:end], cache.sin_S1P[start:end]
    x_BTD: Tensor = model.model.embed_tokens(tokens_BT)
    for block, cached_BSC in zip(model.model.layers, cache.layers_BSC, strict=True):
        assert isinstance(block, Block)
        normed_BTD = block.input_layernorm(x_BTD)
        cached_BSC[:, start:end] = _cache_entries(block.self_attn, normed_BTD, *tables)
        if start:
            x_BTD = x_BTD + _absorbed_attention(block.self_attn, normed_BTD, cached_BSC[:, :end], *tables)
            x_BTD = x_BTD + block.mlp(block.post_attention_layernorm(x_BTD))
        else:
            # Computes norm and latents twice, about 3% of a layer, so that prefill uses the unchanged training code.
            x_BTD = block(x_BTD, *tables)
    cache.length = end
    x_BTD = model.model.norm(x_BTD)
    return x_BTD


def _cache_entries(attention: MLAttention, normed_BTD: Tensor, cos_T1P: Tensor, sin_T1P: Tensor) -> Tensor:
    latent_BTL, k_BTR = attention.latents(normed_BTD)
    halves = (half.squeeze(2) for half in rotate(k_BTR.unsqueeze(2), cos_T1P, sin_T1P))
    return torch.cat((latent_BTL, *halves), -1)


def _absorbed_attention(
    attention: MLAttention, normed_BTD: Tensor, cached_BSC: Tensor, cos_T1P: Tensor, sin_T1P: Tensor
) -> Tensor:
    """Attend from the newest T tokens to the S cached ones, which include them."""
    latent = attention.latent_widths[0]
    up_HXL = attention.kv_b_proj.weight.view(attention.heads, -1, latent)
    key_HNL, value_HEL = torch.split(up_HXL, attention.kv_widths, 1)

    q_BTHN, q_BTHR = attention.queries(normed_BTD)
    q_BTHL = torch.einsum("bthn,hnl->bthl", q_BTHN, key_HNL)
    q_BTHC = torch.cat((q_BTHL, *rotate(q_BTHR, cos_T1P, sin_T1P)), -1)
    scores_BTHS = torch.einsum("bthc,bsc->bths", q_BTHC, cached_BSC)

    wide = torch.promote_types(scores_BTHS.dtype, torch.float32)
    tokens, seen = normed_BTD.shape[1], cached_BSC.shape[1]
    ahead_TS = torch.ones(tokens, seen, dtype=torch.bool, device=cached_BSC.device).triu(seen - tokens + 1)
    scores_BTHS = (scores_BTHS.to(wide) * attention.scale).masked_fill(ahead_TS[:, None], float("-inf"))
    weights_BTHS = scores_BTHS.softmax(-1).to(cached_BSC.dtype)

    mixed_BTHL = torch.einsum("bths,bsl->bthl", weights_BTHS, cached_BSC[..., :latent])
    out_BTHE = torch.einsum("bthl,hel->bthe", mixed_BTHL, value_HEL)
    y_BTD: Tensor = attention.o_proj(out_BTHE.flatten(2))
    return y_BTD
