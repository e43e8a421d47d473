"""Counts the bytes that persist between steps: weights, gradients, optimizer states; and the optimizer's workspace."""

from __future__ import annotations

import math

from engine.execution.allocator import pinned_bytes
from engine.execution.deepspeed_config import BUCKET
from engine.memory.model_shape import BF16, FP32
from profiles.model_config import ModelConfig
from profiles.spec import RunSpec

STATE_BLOCK = 256  # values of an 8-bit optimizer state that share a scale


def weight_bytes(spec: RunSpec) -> int:
    """Return the bytes of the trained weights: fp32, or bf16 under bf16_sr (norm scales stay fp32)."""
    config = spec.model.config
    if spec.train.precision == "bf16_sr":
        return config.params * BF16 + norm_params(config) * (FP32 - BF16)
    return config.params * FP32


def gradient_bytes(spec: RunSpec, width: int) -> int:
    """Return the bytes of all gradients: ``width`` bytes per value of a matrix, fp32 for norm scales."""
    config = spec.model.config
    return config.params * width + norm_params(config) * (FP32 - width)


def optimizer_bytes(spec: RunSpec) -> int:
    """Return the bytes of the optimizer states, on the device or offloaded."""
    config = spec.model.config
    if spec.memory.strategy == "states8bit":
        coded = config.params - norm_params(config)
        scales = 2 * coded * FP32 // STATE_BLOCK
        return 2 * coded + scales + 2 * norm_params(config) * FP32  # a code per moment and value, a scale per block
    if spec.optim.name == "muon":
        others = config.embedding_params + norm_params(config)
        return config.params * FP32 + others * FP32  # one momentum; embedding, head and scales have two moments
    return config.params * 2 * FP32


def average_bytes(spec: RunSpec) -> int:
    """Return the bytes of the average of the weights (``optim.ema``), fp32 in host memory, over all ranks."""
    return spec.model.config.params * FP32 if spec.optim.ema else 0


def checkpoint_bytes(spec: RunSpec) -> int:
    """Return the bytes of a checkpoint's tensors."""
    return weight_bytes(spec) + optimizer_bytes(spec) + average_bytes(spec)


def workspace_bytes(spec: RunSpec, grad_width: int, compiled: bool, device: str) -> int:
    """Return the temporary bytes of an optimizer step. It goes parameter by parameter, so the largest one counts.

    ``grad_width``: bytes of a gradient value. Fused AdamW needs none.
    """
    config = spec.model.config
    largest, narrow = largest_parameter(config), spec.train.precision == "bf16_sr"
    copies = FP32 + (FP32 if grad_width < FP32 else 0) if narrow else 0  # fp32 copies of the weight and its gradient
    if spec.memory.strategy == "states8bit":
        return largest * (copies + (0 if compiled else 6 * FP32))  # both moments dequantized, and their updates
    random = FP32 if narrow else 0  # the random bits of stochastic rounding
    stepping = largest * (copies + random) if narrow else 0
    if spec.optim.name != "muon":
        return stepping
    return max(math.prod(_block_matrices(config)) * copies + _orthogonalizing(spec, device), stepping)


def _orthogonalizing(spec: RunSpec, device: str) -> int:
    """Return the temporary bytes of Muon's largest update: in fp32, the iterate before and after, two products."""
    if spec.optim.name != "muon":
        return 0
    sides, width = _block_matrices(spec.model.config), FP32 if device == "cpu" else BF16
    return math.prod(sides) * (FP32 + 2 * width) + 2 * width * min(sides) ** 2


def largest_parameter(config: ModelConfig) -> int:
    """Return the number of values of the largest parameter."""
    matrices = _block_matrices(config)
    return max(config.vocab_size * config.hidden_size, max(matrices) * min(matrices))


def _block_matrices(config: ModelConfig) -> tuple[int, int]:
    """Return the sides of the feed-forward's matrices, the largest of a block."""
    return config.hidden_size, config.intermediate_size


def norm_params(config: ModelConfig) -> int:
    """Return the number of norm scales."""
    layer = 2 * config.hidden_size + config.kv_lora_rank + (config.q_lora_rank or 0)
    return config.num_hidden_layers * layer + config.hidden_size


# -- DeepSpeed ZeRO-2 with the optimizer in host memory


def zero_device(config: ModelConfig, width: int) -> dict[str, int]:
    """Return what persists on the device: flat weights, and a buffer for one parameter's gradient."""
    return {"weights": config.params * width, "buckets": largest_parameter(config) * width}


def zero_bucket(config: ModelConfig, width: int) -> int:
    """Return the bytes of the buffer through which gradients are offloaded, allocated in every micro-batch."""
    return min(BUCKET, config.params) * width


def zero_host(spec: RunSpec, width: int, pinned: bool) -> dict[str, int]:
    """Return what one rank holds in RAM: its partition of the fp32 masters, their gradients and moments, the window's
    gradient sums, and the transfer buffers. ``pinned``: the memory is pinned, in sizes that torch may round up."""
    config, rounded = spec.model.config, pinned_bytes if pinned else int
    part = -(-config.params // spec.ranks)
    sums = sum(rounded(size * width) * count for size, count in _parameters(config)) // spec.ranks
    return {
        "masters": rounded(part * FP32),
        "gradients": rounded(part * FP32),
        "moments": -(-optimizer_bytes(spec) // spec.ranks),
        "window": sums,
        "buffers": rounded(part * width) + rounded(largest_parameter(config) * width),
    }


def zero_workspace(spec: RunSpec, width: int, device: str) -> int:
    """Return the temporary bytes of its step in RAM: norms are computed parameter by parameter, in fp64, and Muon's
    updates matrix by matrix."""
    return max(largest_parameter(spec.model.config) * (2 * FP32 + width), _orthogonalizing(spec, device))


def _parameters(config: ModelConfig) -> list[tuple[int, int]]:
    """Return the size of each kind of parameter in values, and how many there are."""
    c, layers = config, config.num_hidden_layers
    heads, d, f = c.num_attention_heads, c.hidden_size, c.intermediate_size
    query = heads * c.qk_head_dim
    found = [(d * f, 3 * layers), (c.vocab_size * d, 1 if c.tie_word_embeddings else 2)]
    found += [(d * (c.kv_lora_rank + c.qk_rope_head_dim), layers), (heads * c.v_head_dim * d, layers)]
    found += [(c.kv_lora_rank * heads * (c.qk_nope_head_dim + c.v_head_dim), layers)]
    if c.q_lora_rank is None:
        found += [(d * query, layers)]
    else:
        found += [(d * c.q_lora_rank, layers), (c.q_lora_rank * query, layers)]
    return found
