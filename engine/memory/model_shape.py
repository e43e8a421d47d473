"""What decides about the bytes of a block's tensors."""

from __future__ import annotations

from dataclasses import dataclass

from profiles.model_config import ModelConfig

FP32, BF16 = 4, 2
ACTIVATIONS, ATTENTION, CASTS, GRADIENTS = "activations", "attention", "weight casts", "gradients"
BUCKETS = "buckets"


@dataclass(frozen=True, slots=True)
class Shape:
    """One micro-batch of a model, as a backend works it out. Hashable: what follows from it is worked out once."""

    config: ModelConfig
    sequences: int
    context: int
    width: int  # bytes of a value of the stream
    device: str  # cuda or cpu
    attention: str  # flash, math (where no fast kernel takes the widths) or blocked
    compiled: bool
    checkpointing: str
    loss: str  # fused or plain
    weight: int  # bytes of a weight
    sum: int  # bytes of a weight's gradient while gradients are added up; 0: each leaves at once
    bucket: int  # bytes of the buffer in which gradients leave, there while a backward runs
    grow: bool  # gradients come into being in this backward, rather than being added to those of an earlier one

    @property
    def tokens(self) -> int:
        return self.sequences * self.context

    @property
    def casts(self) -> bool:
        """Whether the stream reads a narrow copy of a wide weight."""
        return self.weight > self.width

    @property
    def fused(self) -> bool:
        """Whether a norm is one kernel. The CPU's is single operations in fp32, each of which keeps what it needs."""
        return self.compiled or self.device == "cuda"

    @property
    def stream(self) -> int:
        """Bytes of the stream between two layers."""
        return self.tokens * self.config.hidden_size * self.width

    @property
    def norm_keeps_input(self) -> bool:
        """Whether a norm keeps what enters, rather than a wide copy of it."""
        return self.fused or self.width == FP32
