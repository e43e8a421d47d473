"""Books the tensors of the model's two ends: the loss (``model/loss.py``) and the embedding's backward."""

from __future__ import annotations

from engine.memory.block import add_weight_gradient, linear_backward, norm, norm_backward
from engine.memory.ledger import Ledger
from engine.memory.model_shape import ACTIVATIONS, BUCKETS, CASTS, FP32, GRADIENTS, Shape

CHUNK_TOKENS = 1024  # per chunk of the fused loss
LOGITS = "logits"


def loss(ledger: Ledger, s: Shape) -> None:
    """Walk the last norm and the loss, forward and backward, to ``grad`` of the last block's output.

    That output must be live as ``x_last``.
    """
    width = s.config.hidden_size
    norm(ledger, s, "norm_last", width)
    if not s.norm_keeps_input:
        ledger.free("x_last")
    (_fused if s.loss == "fused" else _plain)(ledger, s)
    norm_backward(ledger, s, "norm_last", width, "d_last")
    ledger.free("x_last", "d_last")
    ledger.allocate(ACTIVATIONS, "grad", s.stream_bytes)


def _plain(ledger: Ledger, s: Shape) -> None:
    c, values = s.config, s.tokens * s.config.vocab_size
    if s.casts_weights:
        ledger.allocate(CASTS, "cast_head", c.vocab_size * c.hidden_size * s.width)
    ledger.allocate(LOGITS, "logits", values * s.width)
    if s.width < FP32:
        ledger.allocate(LOGITS, "logits_wide", values * FP32)
    ledger.allocate(LOGITS, "log_softmax", values * FP32)
    ledger.free("logits", "logits_wide")
    ledger.allocate(BUCKETS, "bucket", s.bucket_bytes)
    ledger.allocate(LOGITS, "to_softmax", values * FP32)
    ledger.allocate(LOGITS, "d_logits_wide", values * FP32)
    ledger.free("to_softmax", "log_softmax")
    ledger.allocate(LOGITS, "d_logits", values * s.width if s.width < FP32 else 0)
    if s.width < FP32:
        ledger.free("d_logits_wide")
    linear_backward(ledger, s, "head", c.hidden_size, c.vocab_size, s.tokens, "d_last")
    ledger.free("d_logits", "d_logits_wide", "norm_last")


def _fused(ledger: Ledger, s: Shape) -> None:
    c = s.config
    head = c.vocab_size * c.hidden_size
    if s.casts_weights:
        ledger.allocate(CASTS, "cast_head", head * s.width)
    ledger.allocate(LOGITS, "d_last", s.stream_bytes)
    ledger.allocate(LOGITS, "d_head", head * FP32)
    rest = s.tokens - CHUNK_TOKENS
    for tokens in (s.tokens, rest) if rest > 0 else (s.tokens,):  # later chunks are like the second
        _chunk(ledger, s, min(tokens, CHUNK_TOKENS) * c.vocab_size)
        ledger.allocate(LOGITS, "d_chunk", head * s.width)
        ledger.free("d_chunk", "logits")
    ledger.free("d_logits", "cast_head")
    ledger.allocate(BUCKETS, "bucket", s.bucket_bytes)
    if s.weight_width < FP32:
        ledger.allocate(GRADIENTS, "d_weight", head * s.weight_width)
        ledger.free("d_head")
    ledger.free("norm_last")
    ledger.free("d_head")
    add_weight_gradient(ledger, s, head)


def _chunk(ledger: Ledger, s: Shape, values: int) -> None:
    """Walk one chunk to ``logits`` and ``d_logits``. The previous chunk's stay live until they are replaced."""
    narrow = s.width < FP32
    ledger.allocate(LOGITS, "logits", values * s.width)
    if s.compiled:
        ledger.allocate(LOGITS, "d_next", values * s.width)
    else:
        ledger.allocate(LOGITS, "wide", values * FP32 if narrow else 0)
        ledger.allocate(LOGITS, "shifted", values * FP32)
        ledger.allocate(LOGITS, "softmax", values * FP32)
        ledger.free("shifted")
        ledger.allocate(LOGITS, "d_next", values * s.width if narrow else 0)
    ledger.free("wide", "softmax", "d_next", "d_logits")
    ledger.allocate(LOGITS, "d_logits", values * s.width)


def embedding_backward(ledger: Ledger, s: Shape) -> None:
    """Walk the embedding's backward from ``grad`` of the first block's input."""
    values = s.config.vocab_size * s.config.hidden_size
    if s.casts_weights:
        ledger.allocate(ACTIVATIONS, "grad_wide", s.stream_bytes // s.width * s.weight_width)
        ledger.free("grad")
    ledger.allocate(GRADIENTS, "d_weight", values * s.weight_width)
    if s.grad_bytes > s.weight_width:
        ledger.allocate(GRADIENTS, "d_weight_wide", values * s.grad_bytes)
    ledger.free("grad", "grad_wide", "d_weight", "d_weight_wide")
