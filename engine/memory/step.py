"""The two moments of forward and backward that can be its fullest, walked through tensor by tensor.

In between everything is a straight line: a layer's backward frees as much as the layer kept and, where gradients come
into being, leaves as much as it has parameters. So the fullest moment lies at the last block, with the loss before it,
or at the first, with the embedding behind it.
"""

from __future__ import annotations

from functools import lru_cache

from engine.memory import block, head
from engine.memory.ledger import Ledger
from engine.memory.model_shape import ACTIVATIONS, BUCKETS, FP32, GRADIENTS, Shape

INPUTS = "batch and rope"
Parts = dict[str, int]


@lru_cache(maxsize=256)
def peak(s: Shape, held: tuple[tuple[str, int], ...]) -> Parts:
    """The parts at the fullest moment of one micro-batch, ``held`` (what stays alive all along) among them."""
    last, first = _last_block(s, held), _first_block(s, held)
    return dict(max(last, first, key=lambda tape: tape.peak).at_peak)


@lru_cache(maxsize=256)
def kept(s: Shape) -> tuple[tuple[str, int], ...]:
    """What a block leaves for its backward, by part."""
    tape = Ledger()
    _forward(tape, s)
    return tuple((part, size) for part, size in tape.live.items() if size)


def _last_block(s: Shape, held: tuple[tuple[str, int], ...]) -> Ledger:
    tape = _started(s, held)
    for part, size in kept(s):
        tape.make(part, f"below {part}", size * (s.config.num_hidden_layers - 1))
    _forward(tape, s)
    tape.make(ACTIVATIONS, "x_last", s.stream)
    head.loss(tape, s)
    _backward(tape, s)
    return tape


def _first_block(s: Shape, held: tuple[tuple[str, int], ...]) -> Ledger:
    c = s.config
    tape = _started(s, held)
    if s.grow:
        tape.make(GRADIENTS, "gathered", (c.params - c.vocab_size * c.hidden_size - _block_params(s)) * s.sum)
    _forward(tape, s)
    tape.make(BUCKETS, "bucket", s.bucket)
    tape.make(ACTIVATIONS, "grad", s.stream)
    _backward(tape, s)
    head.embedding_backward(tape, s)
    return tape


def _started(s: Shape, held: tuple[tuple[str, int], ...]) -> Ledger:
    tape = Ledger()
    for part, size in held:
        tape.make(part, f"held {part}", size)
    # Ids of 8 bytes, and the targets once more in one piece; two tables of half the rotated width.
    tape.make(INPUTS, "inputs", 16 * (s.tokens + s.sequences) + s.context * s.config.qk_rope_head_dim * FP32)
    return tape


def _block_params(s: Shape) -> int:
    c = s.config
    return (c.params - c.embedding_params - c.hidden_size) // c.num_hidden_layers


def _forward(tape: Ledger, s: Shape) -> None:
    """The forward of a block, and what its checkpointing leaves of it."""
    if s.checkpointing == "offload" and s.device == "cuda":
        return  # what enters has gone to the host
    tape.make(ACTIVATIONS, "x", s.stream)
    if s.checkpointing in ("none", "selective"):
        block.forward(tape, s)
        if s.checkpointing == "selective":
            block.keep_dear(tape, s)
        elif not s.norm_keeps_input:
            tape.drop("x", "x1")


def _backward(tape: Ledger, s: Shape) -> None:
    """The backward of a block, after what its checkpointing has thrown away was worked out again."""
    if s.checkpointing == "offload":
        tape.make(ACTIVATIONS, "x_back", s.stream)
        block.attention_forward(tape, s)
        if not s.norm_keeps_input:
            tape.drop("x_back")
        block.tiled_feed_forward_backward(tape, s)
        block.attention_backward(tape, s)
        return
    if s.checkpointing != "none":
        block.forward(tape, s)
        if not s.norm_keeps_input:
            tape.drop("x1")
    block.backward(tape, s)
