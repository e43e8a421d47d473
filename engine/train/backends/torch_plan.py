"""The paths of a run on the device that torch has found."""

from __future__ import annotations

import torch

from engine.execution import plan
from engine.execution.plan import Paths
from profiles.spec import RunSpec


def resolve_paths(spec: RunSpec, device: str) -> Paths:
    """The paths of ``spec`` on ``device`` (cuda or cpu)."""
    return plan.resolve_paths(spec, device, bf16=device == "cuda" and torch.cuda.is_bf16_supported())


def stream_dtype(chosen: Paths) -> torch.dtype:
    """What flows between the weights."""
    return torch.bfloat16 if chosen.bf16 else torch.float32
