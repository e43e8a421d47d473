"""Implements ``model.transformer`` in MLX: the same arithmetic and parameter names.

A model is a flat dict of arrays by checkpoint name, and every function is pure, because MLX differentiates, compiles
and checkpoints functions of arrays. Shape suffixes as in ``model.mla``.

MLX does not check indices: a token id outside the vocabulary reads garbage, so callers must check ids.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import mlx.core as mx
import torch

from model.loss import CHUNK_TOKENS
from model.mla import LATENT_NORM_EPS
from model.rope import rope_tables, softmax_scale
from profiles.model_config import ModelConfig

Weights = dict[str, mx.array]
Tables = tuple[mx.array, mx.array]


def tables(config: ModelConfig, tokens: int) -> Tables:
    """Return cosine and sine of every position and pair, each (tokens, 1, R / 2), in float32, computed by torch."""
    cos_T1P, sin_T1P = rope_tables(config, tokens, torch.empty(0))
    return mx.array(cos_T1P.numpy()), mx.array(sin_T1P.numpy())


class MLXTransformer:
    """The model as functions of its weights.

    ``stream``: the dtype of the activations. ``checkpointed``: save only the inputs of the blocks for backward.
    ``document_end``: as in ``model.transformer``.
    """

    def __init__(
        self,
        config: ModelConfig,
        stream: mx.Dtype = mx.float32,
        checkpointed: bool = False,
        document_end: int | None = None,
    ) -> None:
        self.config = config
        self.stream = stream
        self._end = document_end
        block = partial(_block, config)
        self._block: Callable[..., mx.array] = mx.checkpoint(block) if checkpointed else block

    def hidden(self, weights: Weights, tokens_BT: mx.array, tables: Tables) -> mx.array:
        """Return the hidden states after the last norm, (B, T, D)."""
        x_BTD = weights["model.embed_tokens.weight"][tokens_BT].astype(self.stream)
        mask = () if self._end is None else (_attention_mask(tokens_BT == self._end),)
        for number in range(self.config.num_hidden_layers):
            x_BTD = self._block(_below(weights, f"model.layers.{number}."), x_BTD, *tables, *mask)
        return _norm(x_BTD, weights["model.norm.weight"], self.config.rms_norm_eps)

    def logits(self, weights: Weights, tokens_BT: mx.array, tables: Tables) -> mx.array:
        """Return the logits of the token after each, (B, T, V)."""
        return _linear(self.hidden(weights, tokens_BT, tables), self._head(weights))

    def loss(
        self, weights: Weights, tokens_BT: mx.array, targets_BT: mx.array, tables: Tables, chunked: bool
    ) -> mx.array:
        """Return the cross entropy summed over the targets that count, in float32. ``chunked``: only ``CHUNK_TOKENS``
        tokens have logits at a time, forward and backward."""
        x_ND = self.hidden(weights, tokens_BT, tables).reshape(-1, self.config.hidden_size)
        head_VD, of_tokens = self._head(weights), [targets_BT.reshape(-1)]
        if self._end is not None:
            of_tokens.append((tokens_BT != self._end).reshape(-1))
        if not chunked:
            return _cross_entropy(head_VD, x_ND, *of_tokens)
        chunk = mx.checkpoint(_cross_entropy)
        starts = range(0, targets_BT.size, CHUNK_TOKENS)
        parts = [chunk(head_VD, *(each[n : n + CHUNK_TOKENS] for each in (x_ND, *of_tokens))) for n in starts]
        return mx.sum(mx.stack(parts))

    def _head(self, weights: Weights) -> mx.array:
        return weights["model.embed_tokens.weight" if self.config.tie_word_embeddings else "lm_head.weight"]


def _attention_mask(ends_BT: mx.array) -> mx.array:
    """Return where a token may attend, (B, 1, T, T): to itself and those before it in its document."""
    ids_BT = mx.cumsum(ends_BT.astype(mx.int32), -1) - ends_BT.astype(mx.int32)
    causal_TT = mx.tril(mx.ones((ids_BT.shape[1],) * 2, mx.bool_))
    return mx.logical_and(ids_BT[:, None, :, None] == ids_BT[:, None, None, :], causal_TT)


def _block(
    config: ModelConfig,
    weights: Weights,
    x_BTD: mx.array,
    cos_T1P: mx.array,
    sin_T1P: mx.array,
    mask: mx.array | str = "causal",
) -> mx.array:
    normed_BTD = _norm(x_BTD, weights["input_layernorm.weight"], config.rms_norm_eps)
    x_BTD = x_BTD + _attention(config, _below(weights, "self_attn."), normed_BTD, cos_T1P, sin_T1P, mask)
    normed_BTD = _norm(x_BTD, weights["post_attention_layernorm.weight"], config.rms_norm_eps)
    gate, up = (_linear(normed_BTD, weights[f"mlp.{name}_proj.weight"]) for name in ("gate", "up"))
    return x_BTD + _linear(gate * mx.sigmoid(gate) * up, weights["mlp.down_proj.weight"])


def _attention(
    config: ModelConfig,
    weights: Weights,
    x_BTD: mx.array,
    cos_T1P: mx.array,
    sin_T1P: mx.array,
    mask: mx.array | str,
) -> mx.array:
    batch, tokens, _ = x_BTD.shape
    heads, nope = config.num_attention_heads, config.qk_nope_head_dim
    if config.q_lora_rank is None:
        q = _linear(x_BTD, weights["q_proj.weight"])
    else:
        latent = _norm(_linear(x_BTD, weights["q_a_proj.weight"]), weights["q_a_layernorm.weight"], LATENT_NORM_EPS)
        q = _linear(latent, weights["q_b_proj.weight"])
    q_BTHQ = q.reshape(batch, tokens, heads, -1)
    q_BTHQ = mx.concatenate([q_BTHQ[..., :nope], *_rotate(q_BTHQ[..., nope:], cos_T1P, sin_T1P)], -1)

    compressed = _linear(x_BTD, weights["kv_a_proj_with_mqa.weight"])
    latent_BTL, k_BTR = compressed[..., : config.kv_lora_rank], compressed[..., config.kv_lora_rank :]
    latent_BTL = _norm(latent_BTL, weights["kv_a_layernorm.weight"], LATENT_NORM_EPS)
    kv_BTHX = _linear(latent_BTL, weights["kv_b_proj.weight"]).reshape(batch, tokens, heads, -1)
    k_BTHN, v_BTHE = kv_BTHX[..., :nope], kv_BTHX[..., nope:]
    rotated = _rotate(k_BTR[:, :, None], cos_T1P, sin_T1P)
    shared = (mx.broadcast_to(half, (*k_BTHN.shape[:3], half.shape[-1])) for half in rotated)
    k_BTHQ = mx.concatenate([k_BTHN, *shared], -1)

    q_BHTQ, k_BHTQ, v_BHTE = (x.transpose(0, 2, 1, 3) for x in (q_BTHQ, k_BTHQ, v_BTHE))
    out_BHTE = mx.fast.scaled_dot_product_attention(q_BHTQ, k_BHTQ, v_BHTE, scale=softmax_scale(config), mask=mask)
    return _linear(out_BHTE.transpose(0, 2, 1, 3).reshape(batch, tokens, -1), weights["o_proj.weight"])


def _rotate(x_BTHR: mx.array, cos_T1P: mx.array, sin_T1P: mx.array) -> tuple[mx.array, mx.array]:
    """Rotate as ``model.rope.rotate`` does."""
    a_BTHP, b_BTHP = x_BTHR[..., 0::2], x_BTHR[..., 1::2]
    first_BTHP = a_BTHP * cos_T1P - b_BTHP * sin_T1P
    second_BTHP = b_BTHP * cos_T1P + a_BTHP * sin_T1P
    return first_BTHP.astype(x_BTHR.dtype), second_BTHP.astype(x_BTHR.dtype)


def _norm(x: mx.array, weight: mx.array, eps: float) -> mx.array:
    return mx.fast.rms_norm(x, weight.astype(x.dtype), eps)


def _linear(x: mx.array, weight: mx.array) -> mx.array:
    """Cast the weight, which may be wider than the activations, and multiply. Its gradient is cast back."""
    return x @ weight.astype(x.dtype).T


def _cross_entropy(
    head_VD: mx.array, x_ND: mx.array, targets_N: mx.array, counted_N: mx.array | None = None
) -> mx.array:
    logits_NV = _linear(x_ND, head_VD).astype(mx.float32)
    chosen_N = mx.take_along_axis(logits_NV, mx.stop_gradient(targets_N)[:, None], -1)[:, 0]
    losses_N = mx.logsumexp(logits_NV, -1) - chosen_N
    return mx.sum(losses_N if counted_N is None else mx.where(counted_N, losses_N, 0.0))


def _below(weights: Weights, prefix: str) -> Weights:
    """Return the weights whose names start with ``prefix``, by the rest of the name."""
    return {name[len(prefix) :]: weight for name, weight in weights.items() if name.startswith(prefix)}
