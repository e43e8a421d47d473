"""Describes a sample of a run: its length and time."""

from __future__ import annotations

from engine.events.types import Sample


def describe_sample(sample: Sample) -> str:
    """Return one line, such as ``64 tokens in 1.2 s``."""
    parts = [] if sample.prompt else ["no prompt"]
    if sample.tokens is not None:
        took = f" in {sample.seconds:.1f} s" if sample.seconds is not None else ""
        parts.append(f"{sample.tokens} token{'s' * (sample.tokens != 1)}{took}")
    if sample.cut:
        parts.append("cut: train.sample_seconds were over")
    return " · ".join(parts)
