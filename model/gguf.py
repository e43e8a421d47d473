"""Converts a model config and its weights to the keys and tensors of a GGUF file of llama.cpp's ``deepseek2``.

The names and layouts are those that llama.cpp reads for a dense DeepSeek-V3 with absorbed attention: ``kv_b_proj`` is
stored as its key part, transposed per head, and its value part. The rotated widths are not permuted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from profiles.model_config import ModelConfig

ARCHITECTURE = "deepseek2"
Value = int | float | str


class GgufTensor(NamedTuple):
    """A tensor of the file: its ``name``, the parameter it is made of, and which ``part`` of that: all, key or value.

    With ``zero`` it is zeros of that shape.
    """

    name: str
    source: str
    part: str = "all"
    zero: bool = False

    def of(self, weight: Tensor, config: ModelConfig) -> Tensor:
        """Return the tensor made of the parameter ``weight``.

        ``kv_b_proj`` (H * (N + E), L) has the key part (H, L, N) and the value part (H, E, L); others are unchanged.
        """
        if self.zero:
            weight = torch.zeros_like(weight)
        if self.part == "all":
            return weight
        nope = config.qk_nope_head_dim
        weight_HXL = weight.view(config.num_attention_heads, nope + config.v_head_dim, config.kv_lora_rank)
        return weight_HXL[:, :nope].transpose(1, 2) if self.part == "key" else weight_HXL[:, nope:]


def gguf_tensors(config: ModelConfig) -> Iterator[GgufTensor]:
    """Yield the tensors of the file in their order."""
    yield GgufTensor("token_embd.weight", "model.embed_tokens.weight")
    for layer in range(config.num_hidden_layers):
        for name, source, part in _layer(config):
            yield GgufTensor(f"blk.{layer}.{name}.weight", f"model.layers.{layer}.{source}.weight", part)
    for layer in range(config.num_hidden_layers, _depth(config)):
        for name, source, part in _layer(config):
            yield GgufTensor(f"blk.{layer}.{name}.weight", f"model.layers.0.{source}.weight", part, zero=True)
    yield GgufTensor("output_norm.weight", "model.norm.weight")
    if not config.tie_word_embeddings:
        yield GgufTensor("output.weight", "lm_head.weight")


def gguf_keys(config: ModelConfig, context: int) -> dict[str, Value]:
    """Return the keys of the architecture for a model trained with ``context`` tokens, without their prefix."""
    return {
        "context_length": context,
        "block_count": _depth(config),
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "vocab_size": config.vocab_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": 1,  # the latent is shared by all heads
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "attention.q_lora_rank": config.q_lora_rank or 0,  # needed even without one
        "attention.kv_lora_rank": config.kv_lora_rank,
        "attention.key_length": config.kv_lora_rank + config.qk_rope_head_dim,
        "attention.value_length": config.kv_lora_rank,
        "attention.key_length_mla": config.qk_head_dim,
        "attention.value_length_mla": config.v_head_dim,
        "rope.dimension_count": config.qk_rope_head_dim,
        "rope.freq_base": config.rope_theta,
        # Every layer is dense.
        "leading_dense_block_count": _depth(config),
        "expert_feed_forward_length": config.intermediate_size,
        "expert_shared_count": 0,
        **_yarn(config, context),
    }


def _depth(config: ModelConfig) -> int:
    """Return the layers of the file: those of the model, or one more that adds nothing.

    llama.cpp takes a model of 26 or 27 layers, or of 48 with one vocabulary, for a DeepSeek without a query latent, and
    does not read one there. A layer of zeros adds zero to the stream.
    """
    layers = config.num_hidden_layers
    lite = layers in (26, 27) or (layers == 48 and config.vocab_size == 128256)
    return layers + 1 if lite and config.q_lora_rank is not None else layers


def _layer(config: ModelConfig) -> Iterator[tuple[str, str, str]]:
    yield "attn_norm", "input_layernorm", "all"
    if config.q_lora_rank is None:
        yield "attn_q", "self_attn.q_proj", "all"
    else:
        yield "attn_q_a", "self_attn.q_a_proj", "all"
        yield "attn_q_a_norm", "self_attn.q_a_layernorm", "all"
        yield "attn_q_b", "self_attn.q_b_proj", "all"
    yield "attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa", "all"
    yield "attn_kv_a_norm", "self_attn.kv_a_layernorm", "all"
    yield "attn_k_b", "self_attn.kv_b_proj", "key"
    yield "attn_v_b", "self_attn.kv_b_proj", "value"
    yield "attn_output", "self_attn.o_proj", "all"
    yield "ffn_norm", "post_attention_layernorm", "all"
    yield "ffn_gate", "mlp.gate_proj", "all"
    yield "ffn_up", "mlp.up_proj", "all"
    yield "ffn_down", "mlp.down_proj", "all"


def _yarn(config: ModelConfig, context: int) -> dict[str, Value]:
    """Return the keys of YaRN; none where rope is not scaled.

    llama.cpp multiplies cosines and sines by ``attn_factor``, and the softmax scale by the square of
    ``attn_factor * (1 + yarn_log_multiplier * ln(factor))``. Both are to be those of ``model.rope``.
    """
    if config.yarn_factor == 1:
        return {}
    log = 0.1 * math.log(config.yarn_factor)
    mscale, all_dim = config.yarn_mscale, config.yarn_mscale_all_dim
    turned = (1 + mscale * log) / (1 + all_dim * log) if mscale and all_dim else 1 + log
    whole = 1 + all_dim * log
    return {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": config.yarn_factor,
        "rope.scaling.original_context_length": config.yarn_original_context or context,
        "rope.scaling.yarn_beta_fast": config.yarn_beta_fast,
        "rope.scaling.yarn_beta_slow": config.yarn_beta_slow,
        "rope.scaling.attn_factor": turned,
        "rope.scaling.yarn_log_multiplier": 0.1 * (whole / turned - 1) / log,
    }
