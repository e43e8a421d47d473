"""Which of several ways to the same numbers a run takes: every "auto" of its spec, decided once.

What is decided here stands in the ``start`` record; docs/performance.md has the measurements behind each choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch

from engine.compiler import what_is_missing
from model.attention import AttentionKind
from model.checkpointing import Checkpointing
from model.loss import LossKind
from profiles.spec import RunSpec

LONGEST_BLOCKED = 2048  # tokens: beyond, its scores are larger than all else a layer keeps


@dataclass(frozen=True, slots=True)
class Paths:
    """What is left of a spec's choices when nothing is "auto" any more."""

    precision: str
    attention: AttentionKind
    checkpointing: Checkpointing
    loss: LossKind
    compiled: bool

    @property
    def stream(self) -> torch.dtype:
        """What flows between the weights."""
        return torch.bfloat16 if self.precision.startswith("bf16") else torch.float32


def resolve_paths(spec: RunSpec, device: str) -> Paths:
    """The paths of ``spec`` on ``device`` (cuda or cpu)."""
    train, memory = spec.train, spec.memory
    precision = train.precision
    if precision == "auto":
        precision = "bf16" if device == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    compiled = train.compile == "on" or (train.compile == "auto" and what_is_missing(device) is None)
    attention = train.attention
    if attention == "auto":
        # The CPU's library kernel is slow in bf16; our blocks are faster once their many small passes are fused.
        blocks_win = device == "cpu" and precision != "fp32" and compiled and spec.batch.context <= LONGEST_BLOCKED
        attention = "blocked" if blocks_win else "sdpa"
    checkpointing = "none" if memory.checkpointing == "auto" else memory.checkpointing
    return Paths(
        precision,
        cast(AttentionKind, attention),
        cast(Checkpointing, checkpointing),
        cast(LossKind, memory.loss),
        compiled,
    )
