"""The latent cache: all that generation keeps of a token is its latent and its rotated key, shared by all heads.

A text is first read with the ordinary forward (prefill), then goes on a token at a time from the cache alone (decode).
Decoding never rebuilds keys and values: with k = U latent, the score q·(U latent) is (Uᵀ q)·latent, so each head's
share of ``kv_b_proj`` moves to the query and, for the values, behind the weighted sum (DeepSeek-V2, arXiv:2405.04434,
section 2.1.2). C is the width of what is kept, L + R, and S the tokens kept; other suffixes are those of ``model.mla``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.mla import MLAttention
from model.rope import rope_tables, rotate
from model.transformer import Block, MLATransformer


class LatentCache:
    """Room for the latents and rotated keys of ``context`` tokens of ``batch`` texts, in every layer of ``model``.

    Allotted once, on the model's device and in its dtype; ``clear`` makes it ready for another text.
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
        """What the layers' tensors take, filled or not."""
        return sum(kept_BSC.nbytes for kept_BSC in self.layers_BSC)

    @property
    def full(self) -> bool:
        return self.length == self.context

    def clear(self) -> None:
        self.length = 0


@torch.no_grad()
def forward_cached(model: MLATransformer, tokens_BT: Tensor, cache: LatentCache) -> Tensor:
    """The stream after the last norm (B, T, D) for tokens that follow those in ``cache``, which grows by them.

    The same numbers, up to rounding, as ``model.hidden`` gives these positions of the whole text. Raises ValueError
    where the cache has no room for them.
    """
    start, end = cache.length, cache.length + tokens_BT.shape[1]
    if end > cache.context:
        raise ValueError(f"{end} tokens do not fit a cache of {cache.context}")
    tables = cache.cos_S1P[start:end], cache.sin_S1P[start:end]
    x_BTD: Tensor = model.model.embed_tokens(tokens_BT)
    for block, kept_BSC in zip(model.model.layers, cache.layers_BSC, strict=True):
        assert isinstance(block, Block)
        normed_BTD = block.input_layernorm(x_BTD)
        kept_BSC[:, start:end] = _kept(block.self_attn, normed_BTD, *tables)
        if start:
            x_BTD = x_BTD + _absorbed(block.self_attn, normed_BTD, kept_BSC[:, :end], *tables)
            x_BTD = x_BTD + block.mlp(block.post_attention_layernorm(x_BTD))
        else:
            # Works out the norm and the latents a second time, about 3% of a layer, to leave the training path alone.
            x_BTD = block(x_BTD, *tables)
    cache.length = end
    x_BTD = model.model.norm(x_BTD)
    return x_BTD


def _kept(attention: MLAttention, normed_BTD: Tensor, cos_T1P: Tensor, sin_T1P: Tensor) -> Tensor:
    latent_BTL, k_BTR = attention.latents(normed_BTD)
    halves = (half.squeeze(2) for half in rotate(k_BTR.unsqueeze(2), cos_T1P, sin_T1P))
    return torch.cat((latent_BTL, *halves), -1)


def _absorbed(attention: MLAttention, normed_BTD: Tensor, kept_BSC: Tensor, cos_T1P: Tensor, sin_T1P: Tensor) -> Tensor:
    """Attend from the newest T tokens to the S that are kept, theirs included."""
    latent = attention.latent_widths[0]
    up_HXL = attention.kv_b_proj.weight.view(attention.heads, -1, latent)
    key_HNL, value_HEL = torch.split(up_HXL, attention.kv_widths, 1)

    q_BTHN, q_BTHR = attention.queries(normed_BTD)
    q_BTHL = torch.einsum("bthn,hnl->bthl", q_BTHN, key_HNL)
    q_BTHC = torch.cat((q_BTHL, *rotate(q_BTHR, cos_T1P, sin_T1P)), -1)
    scores_BTHS = torch.einsum("bthc,bsc->bths", q_BTHC, kept_BSC)

    wide = torch.promote_types(scores_BTHS.dtype, torch.float32)
    tokens, seen = normed_BTD.shape[1], kept_BSC.shape[1]
    ahead_TS = torch.ones(tokens, seen, dtype=torch.bool, device=kept_BSC.device).triu(seen - tokens + 1)
    scores_BTHS = (scores_BTHS.to(wide) * attention.scale).masked_fill(ahead_TS[:, None], float("-inf"))
    weights_BTHS = scores_BTHS.softmax(-1).to(kept_BSC.dtype)

    mixed_BTHL = torch.einsum("bths,bsl->bthl", weights_BTHS, kept_BSC[..., :latent])
    out_BTHE = torch.einsum("bthl,hel->bthe", mixed_BTHL, value_HEL)
    y_BTD: Tensor = attention.o_proj(out_BTHE.flatten(2))
    return y_BTD
