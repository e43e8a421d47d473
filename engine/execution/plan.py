"""Resolves every "auto" of a spec into an execution plan: precision, attention, checkpointing, loss and compile.

The ``start`` record logs the plan; docs/performance.md has the measurements behind each choice. This module does not
import torch, because the memory forecast resolves a plan at every key press.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.execution.compiler import compile_problem
from profiles.spec import RunSpec

MAX_BLOCKED_CONTEXT = 2048  # tokens; beyond it, blocked attention's scores dominate a layer's activation memory
MIN_MASKED_CONTEXT = 1024  # tokens; below it, blocked attention gains nothing from documents that are masked


@dataclass(frozen=True, slots=True)
class ExecutionPlan:
    """How a run computes its steps; nothing in it is "auto"."""

    precision: str  # fp32, bf16, bf16_sr
    attention: str  # sdpa, blocked
    checkpointing: str  # none, selective, full, offload
    loss: str  # fused, plain
    compiled: bool

    @property
    def bf16(self) -> bool:
        """Whether activations are bf16; otherwise they are fp32."""
        return self.precision.startswith("bf16")


def resolve_plan(spec: RunSpec, device: str, bf16: bool) -> ExecutionPlan:
    """Return the plan of ``spec`` on ``device`` (cuda or cpu); ``bf16``: whether the device runs bf16 at full speed."""
    train, memory = spec.train, spec.memory
    precision = train.precision if train.precision != "auto" else "bf16" if bf16 else "fp32"
    compiled = train.compile == "on" or (train.compile == "auto" and _can_compile(device))
    attention = train.attention
    if attention == "auto":
        attention = "blocked" if device == "cpu" and _blocked_is_faster(spec, precision, compiled) else "sdpa"
    checkpointing = "none" if memory.checkpointing == "auto" else memory.checkpointing
    return ExecutionPlan(precision, attention, checkpointing, memory.loss, compiled)


def _blocked_is_faster(spec: RunSpec, precision: str, compiled: bool) -> bool:
    """Return whether blocked attention is faster than torch's kernel on a CPU.

    That kernel is slow in bf16; blocked attention is faster once torch.compile fuses its small operations. It skips the
    blocks between documents that are masked, unless it is compiled.
    """
    if spec.batch.context > MAX_BLOCKED_CONTEXT:
        return False
    if compiled:
        return precision != "fp32"
    return spec.data.documents == "mask" and spec.batch.context >= MIN_MASKED_CONTEXT


def _can_compile(device: str) -> bool:
    return compile_problem(device) is None
