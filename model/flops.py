"""Counts the FLOPs of a training step from the model's shapes."""

from __future__ import annotations

from typing import NamedTuple

from model.shapes import orthogonalized_shapes
from profiles.model_config import ModelConfig

NEWTON_SCHULZ_STEPS = 5  # of Muon, for each matrix and optimizer step


class Product(NamedTuple):
    """A linear layer: (tokens, inputs) @ (inputs, outputs), ``times`` times in one forward pass."""

    inputs: int
    outputs: int
    times: int


def products(config: ModelConfig) -> list[Product]:
    """Return every linear layer of the model and the head, with those of one shape counted together."""
    c, found = config, dict[tuple[int, int], int]()
    heads, d = c.num_attention_heads, c.hidden_size
    if c.q_lora_rank is None:
        layer = [(d, heads * c.qk_head_dim)]
    else:
        layer = [(d, c.q_lora_rank), (c.q_lora_rank, heads * c.qk_head_dim)]
    layer += [
        (d, c.kv_lora_rank + c.qk_rope_head_dim),
        (c.kv_lora_rank, heads * (c.qk_nope_head_dim + c.v_head_dim)),
        (heads * c.v_head_dim, d),
        (d, c.intermediate_size),
        (d, c.intermediate_size),
        (c.intermediate_size, d),
    ]
    for shape in layer:
        found[shape] = found.get(shape, 0) + c.num_hidden_layers
    head = (d, c.vocab_size)
    found[head] = found.get(head, 0) + 1
    return [Product(*shape, times) for shape, times in found.items()]


def matmul_flops_per_token(config: ModelConfig) -> int:
    """Return the FLOPs of all linear layers, forward (2 per weight) and backward (4 per weight)."""
    return 6 * sum(p.inputs * p.outputs * p.times for p in products(config))


def attention_flops_per_token(config: ModelConfig, context: int) -> int:
    """Return the FLOPs of scores and weighted values, forward and backward, averaged over the positions of a context.

    The full square would be 6 × layers × heads × (key width + value width) × context, the 12 × layers × heads × width ×
    context of arXiv:2204.02311 where the widths are equal; a causal mask leaves half of it.
    """
    widths = config.qk_head_dim + config.v_head_dim
    return 3 * config.num_hidden_layers * config.num_attention_heads * widths * context


def flops_per_token(config: ModelConfig, context: int) -> int:
    """Return the model FLOPs of one token, forward and backward (arXiv:2204.02311, appendix B).

    Causal attention counts half of the square. Recomputation counts once, so a fraction of the matmul peak computed
    from this is model FLOPs utilization, not hardware FLOPs utilization. Norms, rope, activations and embedding
    look-ups do not count.
    """
    return matmul_flops_per_token(config) + attention_flops_per_token(config, context)


def newton_schulz_flops(config: ModelConfig) -> int:
    """Return the FLOPs of Muon's orthogonalization in one optimizer step, however many tokens the step has.

    A matrix of m × n, m ≤ n, takes 5 times 4 m² n + 2 m³: its product with its transpose, the square of that, and the
    product of both with the matrix (kellerjordan.github.io/posts/muon). Heads have matrices of their own.
    """
    flops = 0
    for shape, times in orthogonalized_shapes(config).items():
        m, n = sorted(shape)
        flops += times * NEWTON_SCHULZ_STEPS * (4 * m * m * n + 2 * m**3)
    return flops
