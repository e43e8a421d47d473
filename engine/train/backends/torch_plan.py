"""Resolves the execution plan on the device that torch detects."""

from __future__ import annotations

import torch

from engine.execution import plan as execution_plan
from engine.execution.plan import ExecutionPlan
from profiles.spec import RunSpec


def resolve_plan(spec: RunSpec, device: str) -> ExecutionPlan:
    """Return the plan of ``spec`` on ``device`` (cuda or cpu)."""
    # Without emulation: a card that converts to fp32 and back is slower in bf16.
    bf16 = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return execution_plan.resolve_plan(spec, device, bf16)


def stream_dtype(plan: ExecutionPlan) -> torch.dtype:
    """Return the dtype of the activations."""
    return torch.bfloat16 if plan.bf16 else torch.float32
