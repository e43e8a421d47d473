"""Finds the peak of one micro-batch by walking through the two places where it can be, tensor by tensor.

Between them memory is linear in the layers: a layer's backward frees what the layer saved and, where it allocates
gradients, adds as much as it has parameters. So the peak is at the last block, with the loss before it, or at the
first, with the embedding after it.
"""

from __future__ import annotations

from functools import lru_cache

from engine.memory import block, head
from engine.memory.ledger import Ledger
from engine.memory.model_shape import ACTIVATIONS, ATTENTION, BUCKETS, FP32, GRADIENTS, Shape

INPUTS = "batch and rope"
Parts = dict[str, int]


@lru_cache(maxsize=256)
def peak_parts(s: Shape, held: tuple[tuple[str, int], ...]) -> Parts:
    """Return the bytes by part at the peak of one micro-batch. ``held``: what is live throughout, by part."""
    last, first = _last_block(s, held), _first_block(s, held)
    return dict(max(last, first, key=lambda ledger: ledger.peak).parts_at_peak)


@lru_cache(maxsize=256)
def saved_for_backward(s: Shape) -> tuple[tuple[str, int], ...]:
    """Return the bytes that one block saves for its backward, by part."""
    ledger = Ledger()
    _forward(ledger, s)
    return tuple((part, size) for part, size in ledger.live.items() if size)


def _last_block(s: Shape, held: tuple[tuple[str, int], ...]) -> Ledger:
    ledger = _ledger_with(s, held)
    for part, size in saved_for_backward(s):
        ledger.allocate(part, f"below {part}", size * (s.config.num_hidden_layers - 1))
    _forward(ledger, s)
    ledger.allocate(ACTIVATIONS, "x_last", s.stream_bytes)
    head.loss(ledger, s)
    _backward(ledger, s)
    return ledger


def _first_block(s: Shape, held: tuple[tuple[str, int], ...]) -> Ledger:
    c = s.config
    ledger = _ledger_with(s, held)
    if s.creates_grads:
        earlier = c.params - c.vocab_size * c.hidden_size - _block_params(s)
        ledger.allocate(GRADIENTS, "accumulated", earlier * s.grad_bytes)
    _forward(ledger, s)
    ledger.allocate(BUCKETS, "bucket", s.bucket_bytes)
    ledger.allocate(ACTIVATIONS, "grad", s.stream_bytes)
    _backward(ledger, s)
    head.embedding_backward(ledger, s)
    return ledger


def _ledger_with(s: Shape, held: tuple[tuple[str, int], ...]) -> Ledger:
    ledger = Ledger()
    for part, size in held:
        ledger.allocate(part, f"held {part}", size)
    # 8-byte ids and a contiguous copy of the targets; two rope tables of half the rotated width.
    ledger.allocate(INPUTS, "inputs", 16 * (s.tokens + s.sequences) + s.context * s.config.qk_rope_head_dim * FP32)
    if s.documents:  # numbers of documents and their int32 parts, or what is added to every layer's scores
        bias = s.sequences * s.context**2 * s.width
        ledger.allocate(ATTENTION, "documents", 4 * s.tokens if s.attention == "blocked" else bias)
    return ledger


def _block_params(s: Shape) -> int:
    c = s.config
    return (c.params - c.embedding_params - c.hidden_size) // c.num_hidden_layers


def _forward(ledger: Ledger, s: Shape) -> None:
    """Walk a block's forward and free what its checkpointing does not save."""
    if s.checkpointing == "offload" and s.device == "cuda":
        return  # the input is offloaded to the host
    ledger.allocate(ACTIVATIONS, "x", s.stream_bytes)
    if s.checkpointing in ("none", "selective"):
        block.forward(ledger, s)
        if s.checkpointing == "selective":
            block.keep_expensive(ledger, s)
        elif not s.norm_keeps_input:
            ledger.free("x", "x1")


def _backward(ledger: Ledger, s: Shape) -> None:
    """Recompute what the block's checkpointing did not save, then walk its backward."""
    if s.checkpointing == "offload":
        ledger.allocate(ACTIVATIONS, "x_back", s.stream_bytes)
        if s.device == "cuda" and s.config.num_hidden_layers > 1:  # fetched while this block's backward runs
            ledger.allocate(ACTIVATIONS, "x_next", s.stream_bytes)
        block.attention_forward(ledger, s)
        if not s.norm_keeps_input:
            ledger.free("x_back")
        block.tiled_feed_forward_backward(ledger, s)
        block.attention_backward(ledger, s)
        if s.device == "cuda" and s.config.num_hidden_layers > 1:
            ledger.free("x_next")
        return
    if s.checkpointing != "none":
        block.forward(ledger, s)
        if not s.norm_keeps_input:
            ledger.free("x1")
    block.backward(ledger, s)
