"""Books the tensors of one block: what its forward allocates and saves for backward, and what its backward needs.

It follows ``model/mla.py``, ``model/transformer.py`` and ``model/attention.py`` in order and in names: a change there
needs a change here.
"""

from __future__ import annotations

from engine.memory.attention import attend, attend_backward
from engine.memory.ledger import Ledger
from engine.memory.model_shape import ACTIVATIONS, CASTS, FP32, GRADIENTS, Shape

TILE_TOKENS = 4096  # per tile of the feed-forward under checkpointing = offload


def forward(ledger: Ledger, s: Shape) -> None:
    """Walk the block's forward under autograd: everything that backward needs stays live."""
    norm(ledger, s, "norm1", s.config.hidden_size)
    _attention(ledger, s)
    ledger.allocate(ACTIVATIONS, "x1", s.stream_bytes)
    ledger.free("o")
    norm(ledger, s, "norm2", s.config.hidden_size)
    _feed_forward(ledger, s, s.tokens)


def _attention(ledger: Ledger, s: Shape) -> None:
    c, n, w = s.config, s.tokens, s.width
    heads, rotated = c.num_attention_heads, c.qk_rope_head_dim
    if c.q_lora_rank is not None:
        linear(ledger, s, "q_a", c.hidden_size, c.q_lora_rank)
        norm(ledger, s, "norm_q", c.q_lora_rank)
    linear(ledger, s, "q", c.q_lora_rank or c.hidden_size, heads * c.qk_head_dim)
    _rotate(ledger, s, "q_rotated", n * heads * rotated)
    ledger.allocate(ACTIVATIONS, "q_joined", n * heads * c.qk_head_dim * w)
    ledger.free("q_rotated")
    linear(ledger, s, "kv_a", c.hidden_size, c.kv_lora_rank + rotated)
    norm(ledger, s, "norm_kv", c.kv_lora_rank)
    linear(ledger, s, "kv", c.kv_lora_rank, heads * (c.qk_nope_head_dim + c.v_head_dim))
    _rotate(ledger, s, "k_rotated", n * rotated)
    ledger.allocate(ACTIVATIONS, "k_joined", n * heads * c.qk_head_dim * w)
    ledger.free("k_rotated")
    attend(ledger, s)
    linear(ledger, s, "o", heads * c.v_head_dim, c.hidden_size)
    ledger.free("q", "q_unused")
    if not s.norm_keeps_input:
        ledger.free("kv_a")


def _feed_forward(ledger: Ledger, s: Shape, tokens: int) -> None:
    c, w = s.config, s.width
    linear(ledger, s, "gate", c.hidden_size, c.intermediate_size, tokens)
    if not s.compiled:
        ledger.allocate(ACTIVATIONS, "silu", tokens * c.intermediate_size * w)
    linear(ledger, s, "up", c.hidden_size, c.intermediate_size, tokens)
    ledger.allocate(ACTIVATIONS, "product", tokens * c.intermediate_size * w)
    if s.casts_weights:
        ledger.allocate(CASTS, "cast_down", c.intermediate_size * c.hidden_size * w)


def keep_expensive(ledger: Ledger, s: Shape) -> None:
    """Free what selective checkpointing recomputes; keep the block's input and the results that are expensive."""
    ledger.free(*_RECOMPUTED, *_CASTS)
    if s.attention != "flash":
        ledger.free("out", "logsum", "out_heads", "q_scaled", "k_scaled", "v_copy", "weights")
    c, n, w = s.config, s.tokens, s.width
    ledger.free("kv_a")
    for name, values in (
        ("q", c.num_attention_heads * c.qk_head_dim),
        ("kv_a", c.kv_lora_rank + c.qk_rope_head_dim),
        ("o", c.hidden_size),
        ("down", c.hidden_size),
    ):
        ledger.allocate(ACTIVATIONS, name, n * values * w)


def backward(ledger: Ledger, s: Shape) -> None:
    """Walk the block's backward, from ``grad`` of its output to ``grad`` of its input."""
    _feed_forward_backward(ledger, s, s.tokens)
    norm_backward(ledger, s, "norm2", s.config.hidden_size, "d_norm2")
    ledger.free("x1")
    add(ledger, s)
    _attention_backward(ledger, s)
    norm_backward(ledger, s, "norm1", s.config.hidden_size, "d_norm1")
    ledger.free("x", "x_back")
    add(ledger, s)


def _feed_forward_backward(ledger: Ledger, s: Shape, tokens: int) -> None:
    """Walk the feed-forward's backward to ``d_norm2``."""
    c, w = s.config, s.width
    wide = tokens * c.intermediate_size * w
    linear_backward(ledger, s, "down", c.intermediate_size, c.hidden_size, tokens, "d_product")
    ledger.free("product")
    if s.compiled:  # one kernel reads gate, up and the gradient, and writes both gradients
        ledger.allocate(ACTIVATIONS, "d_silu", wide)
        ledger.allocate(ACTIVATIONS, "d_up", wide)
        ledger.free("d_product", "up", "gate")
    else:
        ledger.allocate(ACTIVATIONS, "d_silu", wide)
        ledger.allocate(ACTIVATIONS, "d_up", wide)
        ledger.free("d_product", "up", "silu")
    linear_backward(ledger, s, "up", c.hidden_size, c.intermediate_size, tokens, "d_norm2")
    ledger.free("d_up")
    if not s.compiled:
        ledger.allocate(ACTIVATIONS, "d_gate", wide)
        ledger.free("d_silu", "gate")
    linear_backward(ledger, s, "gate", c.hidden_size, c.intermediate_size, tokens, "d_norm2_gate")
    ledger.free("d_gate", "d_silu", "norm2")
    ledger.allocate(ACTIVATIONS, "d_norm2_sum", tokens * c.hidden_size * w)
    ledger.free("d_norm2_gate", "d_norm2_sum")


def _attention_backward(ledger: Ledger, s: Shape) -> None:
    """Walk the attention's backward to ``d_norm1``."""
    c, n, w = s.config, s.tokens, s.width
    heads, rotated, d = c.num_attention_heads, c.qk_rope_head_dim, c.hidden_size
    query, unrolled = heads * c.qk_head_dim, heads * (c.qk_nope_head_dim + c.v_head_dim)
    linear_backward(ledger, s, "o", heads * c.v_head_dim, d, n, "d_out")
    attend_backward(ledger, s)
    ledger.allocate(ACTIVATIONS, "d_k_rotated", n * rotated * w)
    ledger.allocate(ACTIVATIONS, "d_kv", n * unrolled * w)
    ledger.free("d_k", "d_v")
    linear_backward(ledger, s, "kv", c.kv_lora_rank, unrolled, n, "d_norm_kv")
    ledger.free("d_kv", "norm_kv")
    norm_backward(ledger, s, "norm_kv", c.kv_lora_rank, "d_norm_kv")
    ledger.allocate(ACTIVATIONS, "d_kv_a", n * (c.kv_lora_rank + rotated) * w)
    ledger.free("d_norm_kv", "d_k_rotated", "kv_a")
    linear_backward(ledger, s, "kv_a", d, c.kv_lora_rank + rotated, n, "d_norm1")
    ledger.free("d_kv_a")
    _rotate(ledger, s, "d_q_rotated", n * heads * rotated)
    ledger.allocate(ACTIVATIONS, "d_q_whole", n * query * w)
    ledger.free("d_q", "d_q_rotated")
    if c.q_lora_rank is not None:
        linear_backward(ledger, s, "q", c.q_lora_rank, query, n, "d_norm_q")
        ledger.free("d_q_whole", "norm_q")
        norm_backward(ledger, s, "norm_q", c.q_lora_rank, "d_norm_q")
        ledger.free("q_a")
        linear_backward(ledger, s, "q_a", d, c.q_lora_rank, n, "d_norm1_q")
        ledger.free("d_norm_q")
    else:
        linear_backward(ledger, s, "q", d, query, n, "d_norm1_q")
        ledger.free("d_q_whole")
    ledger.free("norm1")
    ledger.allocate(ACTIVATIONS, "d_norm1_sum", n * d * w)
    ledger.free("d_norm1_q", "d_norm1_sum")


def tiled_feed_forward_backward(ledger: Ledger, s: Shape) -> None:
    """Walk the feed-forward's half under checkpointing = offload at its last tile, to ``grad`` of ``x1``.

    Each tile saved only its slice of ``x1``; the tiles before it have left their gradients.
    """
    width = s.config.hidden_size
    tile = s.sequences * min(s.context, TILE_TOKENS)
    ledger.allocate(ACTIVATIONS, "d_tiles", s.stream_bytes - tile * width * s.width)
    norm(ledger, s, "norm2", width, tile)
    _feed_forward(ledger, s, tile)
    _feed_forward_backward(ledger, s, tile)
    norm_backward(ledger, s, "norm2", width, "d_norm2", tile)
    ledger.allocate(ACTIVATIONS, "d_joined", s.stream_bytes)
    ledger.free("d_tiles", "d_norm2")
    ledger.allocate(ACTIVATIONS, "d_sum", s.stream_bytes)
    ledger.free("x1", "d_joined", "grad", "d_sum")
    ledger.allocate(ACTIVATIONS, "grad", s.stream_bytes)


def attention_forward(ledger: Ledger, s: Shape) -> None:
    """Walk the forward of the attention half, with its result ``x1``."""
    norm(ledger, s, "norm1", s.config.hidden_size)
    _attention(ledger, s)
    ledger.allocate(ACTIVATIONS, "x1", s.stream_bytes)
    ledger.free("o")


def attention_backward(ledger: Ledger, s: Shape) -> None:
    """Walk the backward of the attention half."""
    _attention_backward(ledger, s)
    norm_backward(ledger, s, "norm1", s.config.hidden_size, "d_norm1")
    ledger.free("x", "x_back")
    add(ledger, s)


# -- the layers


def linear(ledger: Ledger, s: Shape, name: str, inputs: int, outputs: int, tokens: int | None = None) -> None:
    """Walk ``model.layers.Linear``: a wide weight is cast, and backward saves the cast."""
    if s.casts_weights:
        ledger.allocate(CASTS, f"cast_{name}", inputs * outputs * s.width)
    if not ledger.is_live(name):  # selective checkpointing has saved it
        ledger.allocate(ACTIVATIONS, name, (s.tokens if tokens is None else tokens) * outputs * s.width)


def linear_backward(ledger: Ledger, s: Shape, name: str, inputs: int, outputs: int, tokens: int, grad: str) -> None:
    """Allocate the gradients of the weight and, as ``grad``, of the input."""
    ledger.allocate(GRADIENTS, "d_weight", inputs * outputs * s.width)
    ledger.allocate(ACTIVATIONS, grad, tokens * inputs * s.width)
    ledger.free(f"cast_{name}")
    add_weight_gradient(ledger, s, inputs * outputs)


def add_weight_gradient(ledger: Ledger, s: Shape, values: int) -> None:
    """Make ``d_weight`` the parameter's gradient, add it to the existing one, or offload it."""
    if s.grad_bytes > s.width:
        ledger.allocate(GRADIENTS, "d_weight_wide", values * s.grad_bytes)
    ledger.free("d_weight", "d_weight_wide")
    if s.creates_grads:
        ledger.allocate(GRADIENTS, "accumulated", values * s.grad_bytes)


def norm(ledger: Ledger, s: Shape, name: str, width: int, tokens: int | None = None) -> None:
    """Walk ``model.layers.RMSNorm``. On a CPU it is single fp32 operations, each of which saves its inputs."""
    tokens = s.tokens if tokens is None else tokens
    n = tokens * width
    ledger.allocate(ACTIVATIONS, f"{name}_rstd", tokens * FP32)
    if not s.fused_norm:
        if s.width < FP32:
            ledger.allocate(ACTIVATIONS, f"{name}_wide", n * FP32)
        ledger.allocate(ACTIVATIONS, f"{name}_square", n * FP32)
        ledger.free(f"{name}_square")
        ledger.allocate(ACTIVATIONS, f"{name}_hat", n * FP32)
        if s.width < FP32:
            ledger.allocate(ACTIVATIONS, f"{name}_scaled", n * FP32)
    ledger.allocate(ACTIVATIONS, name, n * s.width)
    ledger.free(f"{name}_scaled")


def norm_backward(ledger: Ledger, s: Shape, name: str, width: int, grad: str, tokens: int | None = None) -> None:
    """Walk its backward, from ``grad`` of the output to ``grad`` of the input."""
    n = (s.tokens if tokens is None else tokens) * width
    if s.fused_norm:
        ledger.allocate(ACTIVATIONS, "d_norm", n * s.width)
        ledger.free("d_norm", *_norm_tensors(name))
        return
    if s.width < FP32:
        ledger.allocate(ACTIVATIONS, "wide", n * FP32)
        ledger.free(grad)
    ledger.allocate(ACTIVATIONS, "to_weight", n * FP32)
    ledger.allocate(ACTIVATIONS, "to_hat", n * FP32)
    ledger.free("to_weight", "wide", f"{name}_hat", grad)
    ledger.allocate(ACTIVATIONS, "direct", n * FP32)
    ledger.allocate(ACTIVATIONS, "to_rstd", n * FP32)
    ledger.free("to_rstd", "to_hat")
    for part in ("divided", "power", "twice", "through"):
        ledger.allocate(ACTIVATIONS, part, n * FP32)
    ledger.free("divided", "power", "twice", *_norm_tensors(name))
    ledger.allocate(ACTIVATIONS, "both", n * FP32)
    ledger.free("direct", "through")
    ledger.allocate(ACTIVATIONS, grad, n * s.width)
    ledger.free("both")


def add(ledger: Ledger, s: Shape) -> None:
    """Add the gradient of the residual stream and the one through the layer."""
    ledger.allocate(ACTIVATIONS, "d_sum", s.stream_bytes)
    ledger.free("grad", "d_norm1", "d_norm2", "d_sum")
    ledger.allocate(ACTIVATIONS, "grad", s.stream_bytes)


def _rotate(ledger: Ledger, s: Shape, name: str, values: int) -> None:
    """Rotate in fp32, in halves; the temporaries are two more products of half the values."""
    half = values // 2 * FP32
    if not s.compiled:
        ledger.allocate(ACTIVATIONS, name, half * (1 if s.width < FP32 else 0))
        ledger.allocate(ACTIVATIONS, f"{name}_products", half * (3 if s.width < FP32 else 4))
        ledger.free(f"{name}_products")
    ledger.allocate(ACTIVATIONS, name, values * s.width - (half if s.width < FP32 and not s.compiled else 0))


def _norm_tensors(name: str) -> tuple[str, ...]:
    return f"{name}_wide", f"{name}_hat", f"{name}_rstd"


_PROJECTIONS = ("q_a", "q", "kv_a", "kv", "o", "gate", "up", "down")
_CASTS = tuple(f"cast_{name}" for name in _PROJECTIONS)
# What selective checkpointing recomputes: all but the input, the matrix products and the attention kernel's result.
_NORMS = ("norm1", "norm_q", "norm_kv", "norm2")
_RECOMPUTED = (
    *_NORMS,
    *(part for name in _NORMS for part in _norm_tensors(name)),
    "x1",
    "q_joined",
    "k_joined",
    "silu",
    "product",
)
