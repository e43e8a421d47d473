"""Forecasts the memory of the MLX backend, whose device and host share one memory.

MLX schedules its operations itself, and under a gradient its kernels fall back to single operations. So the tensors
saved by a block are counted, and a block's backward is fitted to runs on a Linux CPU, the only place where it was
measured; docs/memory.md gives the error.
"""

from __future__ import annotations

from engine.memory.head import CHUNK_TOKENS
from engine.memory.model_shape import BF16, FP32
from profiles.model_config import ModelConfig
from profiles.spec import RunSpec


def parts(spec: RunSpec, *, bf16: bool) -> dict[str, int]:
    """Return the bytes by part at the peak."""
    config, width = spec.model.config, BF16 if bf16 else FP32
    tokens = spec.batch.micro * spec.batch.context
    full, below = spec.memory.checkpointing == "full", config.num_hidden_layers - 1
    scores = config.num_attention_heads * spec.batch.context * FP32
    saved = config.hidden_size * width if full else _saved_values(config) * width + SAVED_SCORES * scores
    persistent = {
        "weights": config.params * FP32,
        "optimizer": config.params * 2 * FP32,
        "gradients": config.params * FP32,
    }
    activations = tokens * below * saved
    at_block = activations + tokens * (_backward_values(config) * width + SCORES * scores)
    head_tokens = min(tokens, CHUNK_TOKENS) if spec.memory.loss == "fused" else tokens
    logits = head_tokens * config.vocab_size * (width + 3 * FP32)
    at_head = activations + tokens * saved
    moments: list[dict[str, int]] = [
        {"activations": int(at_block)},
        {"activations": int(at_head), "logits": logits},
        {"optimizer workspace": int(STEP * config.params * FP32)},  # new weights and moments beside the old ones
    ]
    if spec.data.documents == "mask":
        persistent["attention"] = spec.batch.micro * spec.batch.context**2  # a bool for each pair of tokens
    return persistent | max(moments, key=lambda parts: sum(parts.values()))


# fp32 score tensors: saved by each block, and live in the block whose backward runs. Fitted.
SAVED_SCORES, SCORES = 2.15, 3.33
STEP = 1.35  # of the weights; fitted


def _backward_values(config: ModelConfig) -> int:
    """Return the values per token live in the backward of one block."""
    return 14 * config.intermediate_size + 21 * (config.hidden_size + config.num_attention_heads * config.qk_head_dim)


def _saved_values(config: ModelConfig) -> int:
    """Return the values per token that one block saves for backward."""
    c = config
    heads, d = c.num_attention_heads, c.hidden_size
    attention = heads * (2 * c.qk_head_dim + c.v_head_dim) + c.cached_values_per_token + c.kv_lora_rank
    unrolled = heads * (c.qk_nope_head_dim + c.v_head_dim)
    return 4 * d + attention + unrolled + 4 * c.intermediate_size
