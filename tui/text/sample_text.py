"""Describes a sample of a run: its length and time, or why there is none."""

from __future__ import annotations

from engine.events.types import Sample

NONE_BY_MLX = "the mlx backend generates none while it trains; mla-tui sample generates from a checkpoint"


def describe_sample(sample: Sample) -> str:
    """Return one line, such as ``64 tokens in 1.2 s``."""
    parts = [] if sample.prompt else ["no prompt"]
    if sample.tokens is not None:
        took = f" in {sample.seconds:.1f} s" if sample.seconds is not None else ""
        parts.append(f"{sample.tokens} token{'s' * (sample.tokens != 1)}{took}")
    if sample.cut:
        parts.append("cut: train.sample_seconds were over")
    return " · ".join(parts)
