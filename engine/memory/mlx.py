"""MLX, whose memory is one: what its backend holds.

MLX decides itself when to work out what; this counts its arrays at the end of a micro-batch's backward, when the
window's gradients are added up.
"""

from __future__ import annotations

from engine.memory.head import CHUNK_TOKENS
from engine.memory.shape import BF16, FP32
from profiles.model_config import ModelConfig
from profiles.spec import RunSpec


def parts(spec: RunSpec, *, bf16: bool) -> dict[str, int]:
    """Bytes by part at the fullest moment."""
    config, width = spec.model.config, BF16 if bf16 else FP32
    tokens = spec.batch.micro * spec.batch.context
    full = spec.memory.checkpointing == "full"
    block = _kept(config) * width * tokens
    layers = config.num_hidden_layers
    activations = block + (layers - 1) * config.hidden_size * width * tokens if full else layers * block
    at_once = min(tokens, CHUNK_TOKENS) if spec.memory.loss == "fused" else tokens
    return {
        "weights": config.params * FP32,
        "optimizer": config.params * 2 * FP32,
        "gradients": config.params * FP32 * (1 if spec.accum == 1 else 2),  # the window's and the micro-batch's
        "activations": activations,
        "logits": at_once * config.vocab_size * (width + 2 * FP32),
    }


def _kept(config: ModelConfig) -> int:
    """Values a token that the backward of one block needs."""
    c = config
    heads, d = c.num_attention_heads, c.hidden_size
    attention = heads * (2 * c.qk_head_dim + c.v_head_dim) + c.cached_values + c.kv_lora_rank
    unrolled = heads * (c.qk_nope_head_dim + c.v_head_dim)
    return 4 * d + attention + unrolled + 4 * c.intermediate_size
