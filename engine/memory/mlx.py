"""MLX, whose memory is one: what its backend holds.

MLX decides itself when to work out what, and its kernels fall back to single operations where a gradient is asked for.
So this is a count of what a block keeps, and beside it a block's backward as fitted to runs on a Linux CPU, the only
place where it could be tried: docs/memory.md says how far it is off.
"""

from __future__ import annotations

from engine.memory.head import CHUNK_TOKENS
from engine.memory.model_shape import BF16, FP32
from profiles.model_config import ModelConfig
from profiles.spec import RunSpec


def parts(spec: RunSpec, *, bf16: bool) -> dict[str, int]:
    """Bytes by part at the fullest moment."""
    config, width = spec.model.config, BF16 if bf16 else FP32
    tokens = spec.batch.micro * spec.batch.context
    full, below = spec.memory.checkpointing == "full", config.num_hidden_layers - 1
    scores = config.num_attention_heads * spec.batch.context * FP32
    kept = config.hidden_size * width if full else _kept(config) * width + KEPT_SCORES * scores
    held = {
        "weights": config.params * FP32,
        "optimizer": config.params * 2 * FP32,
        "gradients": config.params * FP32,
    }
    activations = tokens * below * kept
    at_block = activations + tokens * (_at_once(config) * width + SCORES * scores)
    of_head = min(tokens, CHUNK_TOKENS) if spec.memory.loss == "fused" else tokens
    logits = of_head * config.vocab_size * (width + 3 * FP32)
    at_head = activations + tokens * kept
    moments: list[dict[str, int]] = [
        {"activations": int(at_block)},
        {"activations": int(at_head), "logits": logits},
        {"optimizer workspace": int(STEP * config.params * FP32)},  # new weights and moments beside the old ones
    ]
    return held | max(moments, key=lambda parts: sum(parts.values()))


# Tensors of scores, fp32: of each block for backward, and in the one whose backward runs.
KEPT_SCORES, SCORES = 2.15, 3.33
STEP = 1.35  # of the weights; fitted too


def _at_once(config: ModelConfig) -> int:
    """Values a token in the backward of one block."""
    return 14 * config.intermediate_size + 21 * (config.hidden_size + config.num_attention_heads * config.qk_head_dim)


def _kept(config: ModelConfig) -> int:
    """Values a token that the backward of one block needs."""
    c = config
    heads, d = c.num_attention_heads, c.hidden_size
    attention = heads * (2 * c.qk_head_dim + c.v_head_dim) + c.cached_values_per_token + c.kv_lora_rank
    unrolled = heads * (c.qk_nope_head_dim + c.v_head_dim)
    return 4 * d + attention + unrolled + 4 * c.intermediate_size
