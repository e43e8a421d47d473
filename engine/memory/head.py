"""The two ends of the model, tensor by tensor: the loss (``model/loss.py``) and the embedding."""

from __future__ import annotations

from engine.memory.block import linear_backward, norm, norm_backward, settle
from engine.memory.ledger import Ledger
from engine.memory.model_shape import ACTIVATIONS, BUCKETS, CASTS, FP32, GRADIENTS, Shape

CHUNK_TOKENS = 1024  # of the fused loss
LOGITS = "logits"


def loss(tape: Ledger, s: Shape) -> None:
    """The last norm and the loss, forward and backward; leaves ``grad``, the gradient of the last block's result.

    ``x_last`` is that result: it has to stand on the tape.
    """
    width = s.config.hidden_size
    norm(tape, s, "norm_last", width)
    if not s.norm_keeps_input:
        tape.drop("x_last")
    (_fused if s.loss == "fused" else _plain)(tape, s)
    norm_backward(tape, s, "norm_last", width, "d_last")
    tape.drop("x_last", "d_last")
    tape.make(ACTIVATIONS, "grad", s.stream)


def _plain(tape: Ledger, s: Shape) -> None:
    c, values = s.config, s.tokens * s.config.vocab_size
    if s.casts:
        tape.make(CASTS, "cast_head", c.vocab_size * c.hidden_size * s.width)
    tape.make(LOGITS, "logits", values * s.width)
    if s.width < FP32:
        tape.make(LOGITS, "logits_wide", values * FP32)
    tape.make(LOGITS, "log_softmax", values * FP32)
    tape.drop("logits", "logits_wide")
    tape.make(BUCKETS, "bucket", s.bucket)
    tape.make(LOGITS, "to_softmax", values * FP32)
    tape.make(LOGITS, "d_logits_wide", values * FP32)
    tape.drop("to_softmax", "log_softmax")
    tape.make(LOGITS, "d_logits", values * s.width if s.width < FP32 else 0)
    if s.width < FP32:
        tape.drop("d_logits_wide")
    linear_backward(tape, s, "head", c.hidden_size, c.vocab_size, s.tokens, "d_last")
    tape.drop("d_logits", "d_logits_wide", "norm_last")


def _fused(tape: Ledger, s: Shape) -> None:
    c = s.config
    head = c.vocab_size * c.hidden_size
    if s.casts:
        tape.make(CASTS, "cast_head", head * s.width)
    tape.make(LOGITS, "d_last", s.stream)
    tape.make(LOGITS, "d_head", head * FP32)
    rest = s.tokens - CHUNK_TOKENS
    for tokens in (s.tokens, rest) if rest > 0 else (s.tokens,):  # the third chunk is as the second
        _chunk(tape, s, min(tokens, CHUNK_TOKENS) * c.vocab_size)
        tape.make(LOGITS, "d_chunk", head * s.width)
        tape.drop("d_chunk", "logits")
    tape.drop("d_logits", "cast_head")
    tape.make(BUCKETS, "bucket", s.bucket)
    if s.weight < FP32:
        tape.make(GRADIENTS, "d_weight", head * s.weight)
        tape.drop("d_head")
    tape.drop("norm_last")
    tape.drop("d_head")
    settle(tape, s, head)


def _chunk(tape: Ledger, s: Shape, values: int) -> None:
    """Leaves ``logits`` and ``d_logits``; those of the chunk before keep the name until there are new ones."""
    narrow = s.width < FP32
    tape.make(LOGITS, "logits", values * s.width)
    if s.compiled:
        tape.make(LOGITS, "d_next", values * s.width)
    else:
        tape.make(LOGITS, "wide", values * FP32 if narrow else 0)
        tape.make(LOGITS, "shifted", values * FP32)
        tape.make(LOGITS, "softmax", values * FP32)
        tape.drop("shifted")
        tape.make(LOGITS, "d_next", values * s.width if narrow else 0)
    tape.drop("wide", "softmax", "d_next", "d_logits")
    tape.make(LOGITS, "d_logits", values * s.width)


def embedding_backward(tape: Ledger, s: Shape) -> None:
    """Takes ``grad``, the gradient of the first block's stream."""
    values = s.config.vocab_size * s.config.hidden_size
    if s.casts:
        tape.make(ACTIVATIONS, "grad_wide", s.stream // s.width * s.weight)
        tape.drop("grad")
    tape.make(GRADIENTS, "d_weight", values * s.weight)
    if s.sum > s.weight:
        tape.make(GRADIENTS, "d_weight_wide", values * s.sum)
    tape.drop("grad", "grad_wide", "d_weight", "d_weight_wide")
