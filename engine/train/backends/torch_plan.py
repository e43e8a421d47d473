"""The plan of a run on the device that torch has found."""

from __future__ import annotations

import torch

from engine.execution import plan as execution_plan
from engine.execution.plan import ExecutionPlan
from profiles.spec import RunSpec


def resolve_plan(spec: RunSpec, device: str) -> ExecutionPlan:
    """The plan of ``spec`` on ``device`` (cuda or cpu)."""
    return execution_plan.resolve_plan(spec, device, bf16=device == "cuda" and torch.cuda.is_bf16_supported())


def stream_dtype(chosen: ExecutionPlan) -> torch.dtype:
    """What flows between the weights."""
    return torch.bfloat16 if chosen.bf16 else torch.float32
