"""Describes a micro-batch: everything that determines the sizes of its tensors."""

from __future__ import annotations

from dataclasses import dataclass

from profiles.model_config import ModelConfig

FP32, BF16 = 4, 2
ACTIVATIONS, ATTENTION, CASTS, GRADIENTS = "activations", "attention", "weight casts", "gradients"
BUCKETS = "buckets"


@dataclass(frozen=True, slots=True)
class Shape:
    """One micro-batch of a model as a backend computes it. Hashable, so that results can be cached by it."""

    config: ModelConfig
    sequences: int
    context: int
    width: int  # bytes of an activation value
    device: str  # cuda or cpu
    attention: str  # flash, math (where no fast kernel supports the head widths) or blocked
    compiled: bool
    documents: bool  # whether tokens attend only within their document
    checkpointing: str
    loss: str  # fused or plain
    weight_width: int  # bytes of a weight value
    grad_bytes: int  # bytes of a gradient value while gradients accumulate; 0: each is offloaded at once
    bucket_bytes: int  # the buffer through which gradients are offloaded, allocated during a backward
    creates_grads: bool  # whether this backward allocates the gradients, rather than adding to an earlier one's

    @property
    def tokens(self) -> int:
        return self.sequences * self.context

    @property
    def casts_weights(self) -> bool:
        """Whether each layer casts its weight down to the activations' dtype."""
        return self.weight_width > self.width

    @property
    def fused_norm(self) -> bool:
        """Whether a norm is one kernel. On a CPU it is single fp32 operations, each of which saves its inputs."""
        return self.compiled or self.device == "cuda"

    @property
    def stream_bytes(self) -> int:
        """The bytes of the residual stream between two layers."""
        return self.tokens * self.config.hidden_size * self.width

    @property
    def norm_keeps_input(self) -> bool:
        """Whether a norm saves its input, rather than an fp32 copy of it."""
        return self.fused_norm or self.width == FP32
