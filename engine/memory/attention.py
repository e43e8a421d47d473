"""The attention kernels, tensor by tensor: ``model/attention.py`` and the library's.

On the tape stand ``q_joined``, ``k_joined`` and ``kv``, of which the values are a view; a kernel leaves ``out`` and
``logsum``, or its scores.
"""

from __future__ import annotations

from engine.memory.ledger import Ledger
from engine.memory.model_shape import ACTIVATIONS, ATTENTION, FP32, Shape

BLOCK, MOST_BLOCKS = 128, 8  # of the blocked kernel


def attend(tape: Ledger, s: Shape) -> None:
    """Queries, keys and values to ``out``; leaves what backward needs."""
    c, n, w = s.config, s.tokens, s.width
    heads = c.num_attention_heads
    query, value = n * heads * c.qk_head_dim * w, n * heads * c.v_head_dim * w
    if s.attention == "math":
        scores = n * heads * s.context * FP32
        tape.make(ATTENTION, "mask", s.context**2 * FP32)
        for name in ("q_scaled", "k_scaled", "k_copy"):
            tape.make(ATTENTION, name, query * FP32 // w)
        tape.make(ATTENTION, "scores", scores)
        tape.drop("k_copy")
        tape.make(ATTENTION, "masked", scores)
        tape.drop("scores")
        tape.make(ATTENTION, "weights", scores)
        tape.drop("masked", "mask")
        tape.make(ATTENTION, "v_copy", value * FP32 // w)
        tape.make(ATTENTION, "out_heads", value * FP32 // w)
        tape.make(ACTIVATIONS, "out", value)
        tape.drop("out_heads", "q_joined", "k_joined", "kv")
        return
    if s.attention == "blocked":
        _blocked(tape, s)
        tape.make(ATTENTION, "out_heads", value)  # heads lie outside the tokens: the projection wants a copy
    if not tape.holds("out"):  # selective checkpointing has it already
        tape.make(ACTIVATIONS, "out", value)
        tape.make(ACTIVATIONS, "logsum", n * heads * FP32)


def attend_backward(tape: Ledger, s: Shape) -> None:
    """Takes ``d_out``; leaves ``d_q``, ``d_k`` and ``d_v`` and nothing of the kernel's."""
    c, n, w = s.config, s.tokens, s.width
    heads = c.num_attention_heads
    query, value = n * heads * c.qk_head_dim * w, n * heads * c.v_head_dim * w
    if s.attention == "math":
        scores = n * heads * s.context * FP32
        tape.drop("out")
        tape.make(ATTENTION, "d_out_heads", value)
        tape.drop("d_out")
        tape.make(ATTENTION, "d_v", value * FP32 // w)
        tape.make(ATTENTION, "d_weights", scores)
        tape.drop("d_out_heads", "v_copy")
        tape.make(ATTENTION, "d_scores", scores)
        tape.drop("d_weights", "weights")
        for name in ("d_k", "d_q"):
            tape.make(ACTIVATIONS, name, query * FP32 // w)
        tape.drop("d_scores", "q_scaled", "k_scaled")
        return
    if s.attention == "blocked":
        tape.drop("out")
        _blocked_backward(tape, s)
    elif s.device == "cuda":  # flash adds the queries' gradients up in fp32
        tape.make(ATTENTION, "d_q_sum", n * heads * (c.qk_head_dim + 1) * FP32)
    for name, size in (("d_q", query), ("d_k", query), ("d_v", value)):
        tape.make(ACTIVATIONS, name, size)
    tape.drop("d_q_sum", "d_out", "q_joined", "k_joined", "kv", "logsum", "out", "out_heads", "shares", "made")


def _blocks(tokens: int) -> tuple[int, int]:
    """Queries of one block, and how many blocks there are."""
    size = max(BLOCK, -(-tokens // MOST_BLOCKS))
    return min(size, tokens), -(-tokens // size)


def _blocked(tape: Ledger, s: Shape) -> None:
    """The widest row of blocks is the last but one: its scores are as many as the last's, and wait for theirs."""
    size, count = _blocks(s.context)
    heads = s.sequences * s.config.num_attention_heads
    last = s.context - (count - 1) * size
    before = heads * size * (s.context - last) if count > 1 else 0
    before_that = heads * size * (count - 2) * size if count > 2 else 0
    for name, rows, kept in (("first", before, before_that), ("second", heads * last * s.context, before)):
        tape.make(ATTENTION, f"weights_{name}", kept * FP32)
        tape.make(ATTENTION, f"keys_{name}", heads * s.context * s.config.qk_head_dim * s.width)
        tape.make(ATTENTION, f"product_{name}", rows * s.width)
        if s.width < FP32:
            tape.drop(f"keys_{name}")
            tape.make(ATTENTION, f"wide_{name}", rows * FP32)
        tape.make(ATTENTION, f"scaled_{name}", rows * FP32)
        tape.drop(*(f"{part}_{name}" for part in ("weights", "keys", "product", "wide", "scaled")))


def _blocked_backward(tape: Ledger, s: Shape) -> None:
    c, n, w = s.config, s.tokens, s.width
    heads = s.sequences * c.num_attention_heads
    size, count = _blocks(s.context)
    query, value = n * c.num_attention_heads * c.qk_head_dim, n * c.num_attention_heads * c.v_head_dim
    narrow = w < FP32
    for name in ("d_wide", "out_wide", "product"):
        if narrow or name == "product":
            tape.make(ATTENTION, name, value * FP32)
    tape.drop("d_wide", "out_wide", "product")
    first, second = heads * size * s.context, heads * size * max(0, s.context - size)
    tape.make(ATTENTION, "copies", 2 * query * w if s.sequences > 1 or narrow else 0)
    tape.make(ATTENTION, "scores", first * w)
    tape.drop("copies")
    if narrow:
        tape.make(ATTENTION, "scores_wide", first * FP32)
    tape.make(ATTENTION, "weights", first * FP32)
    tape.drop("scores", "scores_wide")
    tape.make(ATTENTION, "copies", query * w if s.sequences > 1 or narrow else 0)
    if narrow:
        tape.make(ATTENTION, "d_narrow", first * w)
        tape.make(ATTENTION, "d_scores", first * FP32)
        tape.drop("d_narrow")
        tape.make(ATTENTION, "d_narrow", first * w)
        tape.drop("d_scores")
    else:
        tape.make(ATTENTION, "d_narrow", first * FP32)
    tape.make(ATTENTION, "shares", query * (w + (FP32 if narrow else 0)))
    tape.drop("copies")
    if narrow:
        tape.make(ATTENTION, "d_scores", first * FP32)  # until the next block's take its name
        tape.drop("shares")
        tape.make(ATTENTION, "shares", query * FP32)
    if count > 1:
        tape.make(ATTENTION, "next", second * w)
        if narrow:
            tape.make(ATTENTION, "next_wide", second * FP32)
        tape.make(ATTENTION, "next_scaled", second * FP32)
    tape.drop("weights", "d_scores", "d_narrow", "next", "next_wide", "next_scaled", "shares")
    # Each block of keys leaves a share of the gradient of every later query.
    tape.make(ATTENTION, "shares", query * FP32 * (count + 1) / 2)
    tape.make(ATTENTION, "made", (query + value) * w)
