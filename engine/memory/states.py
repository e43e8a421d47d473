"""What a run holds from step to step, wherever it lies: weights, gradients, the optimizer's states, its workspace."""

from __future__ import annotations

from engine.execution.deepspeed_config import BUCKET
from engine.memory.model_shape import BF16, FP32
from profiles.model_config import ModelConfig
from profiles.spec import RunSpec

STATE_BLOCK = 256  # values of an 8-bit optimizer state that share a scale


def weight_bytes(spec: RunSpec) -> int:
    """The weights an optimizer steps: fp32 masters, or bf16 where there are none (norm scales stay fp32)."""
    config = spec.model.config
    if spec.train.precision == "bf16_sr":
        return config.params * BF16 + norm_params(config) * (FP32 - BF16)
    return config.params * FP32


def gradient_bytes(spec: RunSpec, width: int) -> int:
    """The gradients of all parameters, ``width`` bytes a value where the weight is bf16."""
    config = spec.model.config
    return config.params * width + norm_params(config) * (FP32 - width)


def optimizer_bytes(spec: RunSpec) -> int:
    """What the optimizer keeps between steps, wherever it lies."""
    config = spec.model.config
    if spec.memory.strategy == "states8bit":
        coded = config.params - norm_params(config)
        scales = 2 * coded * FP32 // STATE_BLOCK
        return 2 * coded + scales + 2 * norm_params(config) * FP32  # a code a moment and value, a scale for each block
    if spec.optim.name == "muon":
        others = config.embedding_params + norm_params(config)
        return config.params * FP32 + others * FP32  # one momentum; embedding, head and scales have two moments
    return config.params * 2 * FP32


def workspace_bytes(spec: RunSpec, summed: int, compiled: bool) -> int:
    """What a step of the optimizer makes and drops: parameter by parameter, so the largest decides.

    ``summed``: bytes of a gradient's value. AdamW in one fused kernel needs nothing.
    """
    config = spec.model.config
    largest, narrow = largest_parameter(config), spec.train.precision == "bf16_sr"
    copies = FP32 + (FP32 if summed < FP32 else 0) if narrow else 0  # of the weight and its gradient, in fp32
    if spec.memory.strategy == "states8bit":
        return largest * (copies + (0 if compiled else 6 * FP32))  # both moments unpacked, and what becomes of them
    lots = FP32 if narrow else 0
    if spec.optim.name != "muon":
        return largest * (copies + lots) if narrow else 0
    rows, columns = min(_block_matrices(config)), max(_block_matrices(config))
    ortho = FP32 + 2 * BF16  # the update, and its bf16 iterate before and after
    blocks = rows * columns * (copies + ortho) + 2 * BF16 * rows * rows
    return max(blocks, largest * (copies + lots) if narrow else 0)


def largest_parameter(config: ModelConfig) -> int:
    """Values of the largest parameter."""
    matrices = _block_matrices(config)
    return max(config.vocab_size * config.hidden_size, max(matrices) * min(matrices))


def _block_matrices(config: ModelConfig) -> tuple[int, int]:
    """The sides of the feed-forward's matrices, which are the largest of a block."""
    return config.hidden_size, config.intermediate_size


def norm_params(config: ModelConfig) -> int:
    """Parameters that are norm scales."""
    layer = 2 * config.hidden_size + config.kv_lora_rank + (config.q_lora_rank or 0)
    return config.num_hidden_layers * layer + config.hidden_size


# -- DeepSpeed's ZeRO-2 with the optimizer in host memory


def zero_device(config: ModelConfig, width: int) -> dict[str, int]:
    """What it holds on the device from step to step: flat weights, and room for one parameter's gradient."""
    return {"weights": config.params * width, "buckets": largest_parameter(config) * width}


def zero_bucket(config: ModelConfig, width: int) -> int:
    """The buffer in which gradients leave, allotted for every micro-batch."""
    return min(BUCKET, config.params) * width


def zero_host(config: ModelConfig, width: int, ranks: int, pinned: bool) -> dict[str, int]:
    """What one rank of it holds in RAM: its part of the fp32 masters, their gradient and moments, the sums of the
    window and the buffers by which both travel. ``pinned``: torch's pinned memory comes in powers of two."""
    whole = pinned_bytes if pinned else int
    part = -(-config.params // ranks)
    sums = sum(whole(size * width) * count for size, count in _parameters(config)) // ranks
    return {
        "masters": whole(part * FP32),
        "gradients": whole(part * FP32),
        "moments": part * 2 * FP32,
        "window": sums,
        "buffers": whole(part * width) + whole(largest_parameter(config) * width),
    }


def zero_workspace(config: ModelConfig, width: int) -> int:
    """What its step makes and drops in RAM: norms are taken parameter by parameter, in fp64."""
    return largest_parameter(config) * (2 * FP32 + width)


def _parameters(config: ModelConfig) -> list[tuple[int, int]]:
    """Values of each parameter, and how many there are of its kind."""
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


def pinned_bytes(size: int) -> int:
    """What torch's pinned memory takes for ``size`` bytes: the next power of two."""
    return 1 << max(0, size - 1).bit_length() if size else 0
