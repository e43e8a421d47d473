"""Books the tensors of the attention kernels: those of ``model/attention.py`` and the library's.

Before a kernel, ``q_joined``, ``k_joined`` and ``kv`` (of which the values are a view) are live. It saves ``out`` and
``logsum`` for backward, or its attention weights.
"""

from __future__ import annotations

from engine.memory.ledger import Ledger
from engine.memory.model_shape import ACTIVATIONS, ATTENTION, FP32, Shape

BLOCK, MAX_BLOCKS = 128, 8  # as in model/attention.py


def attend(ledger: Ledger, s: Shape) -> None:
    """Walk the forward from queries, keys and values to ``out``; keep live what backward needs."""
    c, n, w = s.config, s.tokens, s.width
    heads = c.num_attention_heads
    query, value = n * heads * c.qk_head_dim * w, n * heads * c.v_head_dim * w
    if s.attention == "math":
        scores = n * heads * s.context * FP32
        if not s.documents:
            ledger.allocate(ATTENTION, "mask", s.context**2 * FP32)
        for name in ("q_scaled", "k_scaled", "k_copy"):
            ledger.allocate(ATTENTION, name, query * FP32 // w)
        ledger.allocate(ATTENTION, "scores", scores)
        ledger.free("k_copy")
        ledger.allocate(ATTENTION, "masked", scores)
        ledger.free("scores")
        ledger.allocate(ATTENTION, "weights", scores)
        ledger.free("masked", "mask")
        ledger.allocate(ATTENTION, "v_copy", value * FP32 // w)
        ledger.allocate(ATTENTION, "out_heads", value * FP32 // w)
        ledger.allocate(ACTIVATIONS, "out", value)
        ledger.free("out_heads", "q_joined", "k_joined", "kv")
        return
    if s.attention == "blocked":
        _blocked(ledger, s)
        ledger.allocate(ATTENTION, "out_heads", value)  # heads before tokens: the projection needs a copy
    if not ledger.is_live("out"):  # selective checkpointing has saved it
        ledger.allocate(ACTIVATIONS, "out", value)
        ledger.allocate(ACTIVATIONS, "logsum", n * heads * FP32)


def attend_backward(ledger: Ledger, s: Shape) -> None:
    """Walk the backward from ``d_out`` to ``d_q``, ``d_k`` and ``d_v``; free everything of the kernel."""
    c, n, w = s.config, s.tokens, s.width
    heads = c.num_attention_heads
    query, value = n * heads * c.qk_head_dim * w, n * heads * c.v_head_dim * w
    if s.attention == "math":
        scores = n * heads * s.context * FP32
        ledger.free("out")
        ledger.allocate(ATTENTION, "d_out_heads", value)
        ledger.free("d_out")
        ledger.allocate(ATTENTION, "d_v", value * FP32 // w)
        ledger.allocate(ATTENTION, "d_weights", scores)
        ledger.free("d_out_heads", "v_copy")
        ledger.allocate(ATTENTION, "d_scores", scores)
        ledger.free("d_weights", "weights")
        for name in ("d_k", "d_q"):
            ledger.allocate(ACTIVATIONS, name, query * FP32 // w)
        ledger.free("d_scores", "q_scaled", "k_scaled")
        return
    if s.attention == "blocked":
        ledger.free("out")
        _blocked_backward(ledger, s)
    elif s.device == "cuda":  # flash accumulates the queries' gradients in fp32
        ledger.allocate(ATTENTION, "d_q_sum", n * heads * (c.qk_head_dim + 1) * FP32)
    for name, size in (("d_q", query), ("d_k", query), ("d_v", value)):
        ledger.allocate(ACTIVATIONS, name, size)
    ledger.free("d_q_sum", "d_out", "q_joined", "k_joined", "kv", "logsum", "out", "out_heads", "partials", "joined")


def _blocks(tokens: int) -> tuple[int, int]:
    """Return the queries per block and the number of blocks."""
    size = max(BLOCK, -(-tokens // MAX_BLOCKS))
    return min(size, tokens), -(-tokens // size)


def _blocked(ledger: Ledger, s: Shape) -> None:
    """Walk the last two rows of blocks, the widest: the scores of one are still live when the next is computed."""
    size, count = _blocks(s.context)
    heads = s.sequences * s.config.num_attention_heads
    last = s.context - (count - 1) * size
    before = heads * size * (s.context - last) if count > 1 else 0
    before_that = heads * size * (count - 2) * size if count > 2 else 0
    for name, rows, previous in (("first", before, before_that), ("second", heads * last * s.context, before)):
        ledger.allocate(ATTENTION, f"weights_{name}", previous * FP32)
        ledger.allocate(ATTENTION, f"keys_{name}", heads * s.context * s.config.qk_head_dim * s.width)
        ledger.allocate(ATTENTION, f"product_{name}", rows * s.width)
        if s.width < FP32:
            ledger.free(f"keys_{name}")
            ledger.allocate(ATTENTION, f"wide_{name}", rows * FP32)
        ledger.allocate(ATTENTION, f"scaled_{name}", rows * FP32)
        ledger.allocate(ATTENTION, f"others_{name}", rows // s.config.num_attention_heads if s.documents else 0)
        ledger.free(*(f"{part}_{name}" for part in ("weights", "keys", "product", "wide", "scaled", "others")))


def _blocked_backward(ledger: Ledger, s: Shape) -> None:
    c, n, w = s.config, s.tokens, s.width
    heads = s.sequences * c.num_attention_heads
    size, count = _blocks(s.context)
    query, value = n * c.num_attention_heads * c.qk_head_dim, n * c.num_attention_heads * c.v_head_dim
    narrow = w < FP32
    for name in ("d_wide", "out_wide", "product"):
        if narrow or name == "product":
            ledger.allocate(ATTENTION, name, value * FP32)
    ledger.free("d_wide", "out_wide", "product")
    first, second = heads * size * s.context, heads * size * max(0, s.context - size)
    ledger.allocate(ATTENTION, "copies", 2 * query * w if s.sequences > 1 or narrow else 0)
    ledger.allocate(ATTENTION, "scores", first * w)
    ledger.free("copies")
    if narrow:
        ledger.allocate(ATTENTION, "scores_wide", first * FP32)
    ledger.allocate(ATTENTION, "weights", first * FP32)
    ledger.allocate(ATTENTION, "others", first // c.num_attention_heads if s.documents else 0)
    ledger.free("scores", "scores_wide", "others")
    ledger.allocate(ATTENTION, "copies", query * w if s.sequences > 1 or narrow else 0)
    if narrow:
        ledger.allocate(ATTENTION, "d_narrow", first * w)
        ledger.allocate(ATTENTION, "d_scores", first * FP32)
        ledger.free("d_narrow")
        ledger.allocate(ATTENTION, "d_narrow", first * w)
        ledger.free("d_scores")
    else:
        ledger.allocate(ATTENTION, "d_narrow", first * FP32)
    ledger.allocate(ATTENTION, "partials", query * (w + (FP32 if narrow else 0)))
    ledger.free("copies")
    if narrow:
        ledger.allocate(ATTENTION, "d_scores", first * FP32)  # live until the next block's replace them
        ledger.free("partials")
        ledger.allocate(ATTENTION, "partials", query * FP32)
    if count > 1:
        ledger.allocate(ATTENTION, "next", second * w)
        if narrow:
            ledger.allocate(ATTENTION, "next_wide", second * FP32)
        ledger.allocate(ATTENTION, "next_scaled", second * FP32)
    ledger.free("weights", "d_scores", "d_narrow", "next", "next_wide", "next_scaled", "partials")
    # Each block of keys adds a partial gradient of every later query.
    ledger.allocate(ATTENTION, "partials", query * FP32 * (count + 1) / 2)
    ledger.allocate(ATTENTION, "joined", (query + value) * w)
