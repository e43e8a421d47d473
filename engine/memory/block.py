"""One block of the model, tensor by tensor: what its forward makes and keeps for backward, and what backward needs.

Written beside ``model/mla.py``, ``model/transformer.py`` and ``model/attention.py`` and in their order: a change there
is a change here. The names on the tape are those of the values there.
"""

from __future__ import annotations

from engine.memory.attention import attend, attend_backward
from engine.memory.ledger import Ledger
from engine.memory.model_shape import ACTIVATIONS, CASTS, FP32, GRADIENTS, Shape

TILE_TOKENS = 4096  # of the feed-forward under checkpointing offload


def forward(tape: Ledger, s: Shape) -> None:
    """The block's forward in sight of autograd: all that backward needs is left on the tape."""
    norm(tape, s, "norm1", s.config.hidden_size)
    _attention(tape, s)
    tape.make(ACTIVATIONS, "x1", s.stream)
    tape.drop("o")
    norm(tape, s, "norm2", s.config.hidden_size)
    _feed_forward(tape, s, s.tokens)


def _attention(tape: Ledger, s: Shape) -> None:
    c, n, w = s.config, s.tokens, s.width
    heads, rotated = c.num_attention_heads, c.qk_rope_head_dim
    if c.q_lora_rank is not None:
        linear(tape, s, "q_a", c.hidden_size, c.q_lora_rank)
        norm(tape, s, "norm_q", c.q_lora_rank)
    linear(tape, s, "q", c.q_lora_rank or c.hidden_size, heads * c.qk_head_dim)
    _rotate(tape, s, "q_turned", n * heads * rotated)
    tape.make(ACTIVATIONS, "q_joined", n * heads * c.qk_head_dim * w)
    tape.drop("q_turned")
    linear(tape, s, "kv_a", c.hidden_size, c.kv_lora_rank + rotated)
    norm(tape, s, "norm_kv", c.kv_lora_rank)
    linear(tape, s, "kv", c.kv_lora_rank, heads * (c.qk_nope_head_dim + c.v_head_dim))
    _rotate(tape, s, "k_turned", n * rotated)
    tape.make(ACTIVATIONS, "k_joined", n * heads * c.qk_head_dim * w)
    tape.drop("k_turned")
    attend(tape, s)
    linear(tape, s, "o", heads * c.v_head_dim, c.hidden_size)
    tape.drop("q", "q_unused")
    if not s.norm_keeps_input:
        tape.drop("kv_a")


def _feed_forward(tape: Ledger, s: Shape, tokens: int) -> None:
    c, w = s.config, s.width
    linear(tape, s, "gate", c.hidden_size, c.intermediate_size, tokens)
    if not s.compiled:
        tape.make(ACTIVATIONS, "silu", tokens * c.intermediate_size * w)
    linear(tape, s, "up", c.hidden_size, c.intermediate_size, tokens)
    tape.make(ACTIVATIONS, "product", tokens * c.intermediate_size * w)
    if s.casts:
        tape.make(CASTS, "cast_down", c.intermediate_size * c.hidden_size * w)


def keep_dear(tape: Ledger, s: Shape) -> None:
    """What selective checkpointing leaves of a forward: what enters and the results that cost most."""
    tape.drop(*_CHEAP, *_CASTS)
    if s.attention != "flash":
        tape.drop("out", "logsum", "out_heads", "q_scaled", "k_scaled", "v_copy", "weights")
    c, n, w = s.config, s.tokens, s.width
    tape.drop("kv_a")
    for name, values in (
        ("q", c.num_attention_heads * c.qk_head_dim),
        ("kv_a", c.kv_lora_rank + c.qk_rope_head_dim),
        ("o", c.hidden_size),
        ("down", c.hidden_size),
    ):
        tape.make(ACTIVATIONS, name, n * values * w)


def backward(tape: Ledger, s: Shape) -> None:
    """The block's backward: takes ``grad``, the gradient of its result, leaves ``grad`` as that of what entered."""
    _feed_forward_backward(tape, s, s.tokens)
    norm_backward(tape, s, "norm2", s.config.hidden_size, "d_norm2")
    tape.drop("x1")
    add(tape, s)
    _attention_backward(tape, s)
    norm_backward(tape, s, "norm1", s.config.hidden_size, "d_norm1")
    tape.drop("x", "x_back")
    add(tape, s)


def _feed_forward_backward(tape: Ledger, s: Shape, tokens: int) -> None:
    """Leaves ``d_norm2``."""
    c, w = s.config, s.width
    wide = tokens * c.intermediate_size * w
    linear_backward(tape, s, "down", c.intermediate_size, c.hidden_size, tokens, "d_product")
    tape.drop("product")
    if s.compiled:  # one kernel reads gate, up and the gradient, and writes both gradients
        tape.make(ACTIVATIONS, "d_silu", wide)
        tape.make(ACTIVATIONS, "d_up", wide)
        tape.drop("d_product", "up", "gate")
    else:
        tape.make(ACTIVATIONS, "d_silu", wide)
        tape.make(ACTIVATIONS, "d_up", wide)
        tape.drop("d_product", "up", "silu")
    linear_backward(tape, s, "up", c.hidden_size, c.intermediate_size, tokens, "d_norm2")
    tape.drop("d_up")
    if not s.compiled:
        tape.make(ACTIVATIONS, "d_gate", wide)
        tape.drop("d_silu", "gate")
    linear_backward(tape, s, "gate", c.hidden_size, c.intermediate_size, tokens, "d_norm2_gate")
    tape.drop("d_gate", "d_silu", "norm2")
    tape.make(ACTIVATIONS, "d_norm2_sum", tokens * c.hidden_size * w)
    tape.drop("d_norm2_gate", "d_norm2_sum")


def _attention_backward(tape: Ledger, s: Shape) -> None:
    """Leaves ``d_norm1``."""
    c, n, w = s.config, s.tokens, s.width
    heads, rotated, d = c.num_attention_heads, c.qk_rope_head_dim, c.hidden_size
    query, unrolled = heads * c.qk_head_dim, heads * (c.qk_nope_head_dim + c.v_head_dim)
    linear_backward(tape, s, "o", heads * c.v_head_dim, d, n, "d_out")
    attend_backward(tape, s)
    tape.make(ACTIVATIONS, "d_k_turned", n * rotated * w)
    tape.make(ACTIVATIONS, "d_kv", n * unrolled * w)
    tape.drop("d_k", "d_v")
    linear_backward(tape, s, "kv", c.kv_lora_rank, unrolled, n, "d_norm_kv")
    tape.drop("d_kv", "norm_kv")
    norm_backward(tape, s, "norm_kv", c.kv_lora_rank, "d_norm_kv")
    tape.make(ACTIVATIONS, "d_kv_a", n * (c.kv_lora_rank + rotated) * w)
    tape.drop("d_norm_kv", "d_k_turned", "kv_a")
    linear_backward(tape, s, "kv_a", d, c.kv_lora_rank + rotated, n, "d_norm1")
    tape.drop("d_kv_a")
    _rotate(tape, s, "d_q_turned", n * heads * rotated)
    tape.make(ACTIVATIONS, "d_q_whole", n * query * w)
    tape.drop("d_q", "d_q_turned")
    if c.q_lora_rank is not None:
        linear_backward(tape, s, "q", c.q_lora_rank, query, n, "d_norm_q")
        tape.drop("d_q_whole", "norm_q")
        norm_backward(tape, s, "norm_q", c.q_lora_rank, "d_norm_q")
        tape.drop("q_a")
        linear_backward(tape, s, "q_a", d, c.q_lora_rank, n, "d_norm1_q")
        tape.drop("d_norm_q")
    else:
        linear_backward(tape, s, "q", d, query, n, "d_norm1_q")
        tape.drop("d_q_whole")
    tape.drop("norm1")
    tape.make(ACTIVATIONS, "d_norm1_sum", n * d * w)
    tape.drop("d_norm1_q", "d_norm1_sum")


def tiled_feed_forward_backward(tape: Ledger, s: Shape) -> None:
    """The feed-forward's half under checkpointing offload, at its last tile: each kept only its slice of ``x1``, and
    those that are done have left their gradient. Takes ``grad``, leaves it as the gradient of ``x1``."""
    width = s.config.hidden_size
    tile = s.sequences * min(s.context, TILE_TOKENS)
    tape.make(ACTIVATIONS, "d_tiles", s.stream - tile * width * s.width)
    norm(tape, s, "norm2", width, tile)
    _feed_forward(tape, s, tile)
    _feed_forward_backward(tape, s, tile)
    norm_backward(tape, s, "norm2", width, "d_norm2", tile)
    tape.make(ACTIVATIONS, "d_joined", s.stream)
    tape.drop("d_tiles", "d_norm2")
    tape.make(ACTIVATIONS, "d_sum", s.stream)
    tape.drop("x1", "d_joined", "grad", "d_sum")
    tape.make(ACTIVATIONS, "grad", s.stream)


def attention_forward(tape: Ledger, s: Shape) -> None:
    """The first half alone, result and all."""
    norm(tape, s, "norm1", s.config.hidden_size)
    _attention(tape, s)
    tape.make(ACTIVATIONS, "x1", s.stream)
    tape.drop("o")


def attention_backward(tape: Ledger, s: Shape) -> None:
    """The first half alone."""
    _attention_backward(tape, s)
    norm_backward(tape, s, "norm1", s.config.hidden_size, "d_norm1")
    tape.drop("x", "x_back")
    add(tape, s)


# -- the layers


def linear(tape: Ledger, s: Shape, name: str, inputs: int, outputs: int, tokens: int | None = None) -> None:
    """``model.layers.Linear``: a wide weight is cast on the way in, and the cast is what backward keeps."""
    if s.casts:
        tape.make(CASTS, f"cast_{name}", inputs * outputs * s.width)
    if not tape.holds(name):  # selective checkpointing has it already
        tape.make(ACTIVATIONS, name, (s.tokens if tokens is None else tokens) * outputs * s.width)


def linear_backward(tape: Ledger, s: Shape, name: str, inputs: int, outputs: int, tokens: int, grad: str) -> None:
    """The gradient of the weight, and as ``grad`` that of what entered."""
    tape.make(GRADIENTS, "d_weight", inputs * outputs * s.width)
    tape.make(ACTIVATIONS, grad, tokens * inputs * s.width)
    tape.drop(f"cast_{name}")
    settle(tape, s, inputs * outputs)


def settle(tape: Ledger, s: Shape, values: int) -> None:
    """``d_weight`` becomes the parameter's gradient, is added to the one it has, or leaves for the host."""
    if s.sum > s.width:
        tape.make(GRADIENTS, "d_weight_wide", values * s.sum)
    tape.drop("d_weight", "d_weight_wide")
    if s.grow:
        tape.make(GRADIENTS, "gathered", values * s.sum)


def norm(tape: Ledger, s: Shape, name: str, width: int, tokens: int | None = None) -> None:
    """``model.layers.RMSNorm``. A CPU has it as single operations in fp32, each of which keeps what it needs."""
    tokens = s.tokens if tokens is None else tokens
    n = tokens * width
    tape.make(ACTIVATIONS, f"{name}_rstd", tokens * FP32)
    if not s.fused:
        if s.width < FP32:
            tape.make(ACTIVATIONS, f"{name}_wide", n * FP32)
        tape.make(ACTIVATIONS, f"{name}_square", n * FP32)
        tape.drop(f"{name}_square")
        tape.make(ACTIVATIONS, f"{name}_hat", n * FP32)
        if s.width < FP32:
            tape.make(ACTIVATIONS, f"{name}_scaled", n * FP32)
    tape.make(ACTIVATIONS, name, n * s.width)
    tape.drop(f"{name}_scaled")


def norm_backward(tape: Ledger, s: Shape, name: str, width: int, grad: str, tokens: int | None = None) -> None:
    """Takes ``grad``, that of the result, and leaves it as that of what entered."""
    n = (s.tokens if tokens is None else tokens) * width
    if s.fused:
        tape.make(ACTIVATIONS, "d_norm", n * s.width)
        tape.drop("d_norm", *_of_norm(name))
        return
    if s.width < FP32:
        tape.make(ACTIVATIONS, "wide", n * FP32)
        tape.drop(grad)
    tape.make(ACTIVATIONS, "to_weight", n * FP32)
    tape.make(ACTIVATIONS, "to_hat", n * FP32)
    tape.drop("to_weight", "wide", f"{name}_hat", grad)
    tape.make(ACTIVATIONS, "direct", n * FP32)
    tape.make(ACTIVATIONS, "to_rstd", n * FP32)
    tape.drop("to_rstd", "to_hat")
    for part in ("divided", "power", "twice", "through"):
        tape.make(ACTIVATIONS, part, n * FP32)
    tape.drop("divided", "power", "twice", *_of_norm(name))
    tape.make(ACTIVATIONS, "both", n * FP32)
    tape.drop("direct", "through")
    tape.make(ACTIVATIONS, grad, n * s.width)
    tape.drop("both")


def add(tape: Ledger, s: Shape) -> None:
    """The gradient past a layer and the one through it become one."""
    tape.make(ACTIVATIONS, "d_sum", s.stream)
    tape.drop("grad", "d_norm1", "d_norm2", "d_sum")
    tape.make(ACTIVATIONS, "grad", s.stream)


def _rotate(tape: Ledger, s: Shape, name: str, values: int) -> None:
    """Both halves, worked out in fp32; what is made on the way is two more products of half the values."""
    half = values // 2 * FP32
    if not s.compiled:
        tape.make(ACTIVATIONS, name, half * (1 if s.width < FP32 else 0))
        tape.make(ACTIVATIONS, f"{name}_products", half * (3 if s.width < FP32 else 4))
        tape.drop(f"{name}_products")
    tape.make(ACTIVATIONS, name, values * s.width - (half if s.width < FP32 and not s.compiled else 0))


def _of_norm(name: str) -> tuple[str, ...]:
    return f"{name}_wide", f"{name}_hat", f"{name}_rstd"


_PROJECTIONS = ("q_a", "q", "kv_a", "kv", "o", "gate", "up", "down")
_CASTS = tuple(f"cast_{name}" for name in _PROJECTIONS)
# What selective checkpointing throws away: all but what enters, products of matrices and the attention kernel's result.
_NORMS = ("norm1", "norm_q", "norm_kv", "norm2")
_CHEAP = (
    *_NORMS,
    *(part for name in _NORMS for part in _of_norm(name)),
    "x1",
    "q_joined",
    "k_joined",
    "silu",
    "product",
)
