"""Which of several ways to the same numbers a run takes: every "auto" of its spec, decided once.

What is decided here stands in the ``start`` record; docs/performance.md has the measurements behind each choice. No
torch: the forecast asks too, at every key press.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.execution.compiler import compile_problem
from profiles.spec import RunSpec

LONGEST_BLOCKED = 2048  # tokens: beyond, its scores are larger than all else a layer keeps


@dataclass(frozen=True, slots=True)
class ExecutionPlan:
    """What is left of a spec's choices when nothing is "auto" any more."""

    precision: str  # fp32, bf16, bf16_sr
    attention: str  # sdpa, blocked
    checkpointing: str  # none, selective, full, offload
    loss: str  # fused, plain
    compiled: bool

    @property
    def bf16(self) -> bool:
        """Whether what flows between the weights is bf16; else it is fp32."""
        return self.precision.startswith("bf16")


def resolve_plan(spec: RunSpec, device: str, bf16: bool) -> ExecutionPlan:
    """The plan of ``spec`` on ``device`` (cuda or cpu); ``bf16``: whether the device computes in it at full speed."""
    train, memory = spec.train, spec.memory
    precision = train.precision if train.precision != "auto" else "bf16" if bf16 else "fp32"
    compiled = train.compile == "on" or (train.compile == "auto" and _can_compile(device))
    attention = train.attention
    if attention == "auto":
        # The CPU's library kernel is slow in bf16; our blocks are faster once their many small passes are fused.
        blocks_win = device == "cpu" and precision != "fp32" and compiled and spec.batch.context <= LONGEST_BLOCKED
        attention = "blocked" if blocks_win else "sdpa"
    checkpointing = "none" if memory.checkpointing == "auto" else memory.checkpointing
    return ExecutionPlan(precision, attention, checkpointing, memory.loss, compiled)


def _can_compile(device: str) -> bool:
    return compile_problem(device) is None
