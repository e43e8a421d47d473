"""Estimates a step's time well enough to rank memory levers, not to predict a speed.

A step's time is the sum of its matrix products at the device's FLOP/s, its passes over weights, gradients and states at
the memory's bandwidth, and its transfers at the bus's. The speeds are assumptions about a class of device, not about
this one. Recomputation and the number of passes are counted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from engine.execution.plan import resolve_plan
from engine.memory import step
from engine.memory.forecast import micro_batch_shape
from engine.memory.hardware import Hardware
from model.flops import attention_flops_per_token, flops_per_token, products
from profiles.spec import RunSpec


@dataclass(frozen=True, slots=True)
class Speeds:
    """FLOP/s of matrix products; bytes/s of the device's memory, of the bus and of the host's memory."""

    flops: float
    memory: float
    bus: float
    host: float


# A 16 GB card of 2025 (about half of the vendor's figures), two CPU cores (docs/performance.md), an M4 Pro.
ASSUMED_SPEEDS = {
    "cuda": Speeds(80e12, 800e9, 20e9, 40e9),
    "cpu": Speeds(0.3e12, 20e9, 20e9, 20e9),
    "mlx": Speeds(6e12, 220e9, 220e9, 220e9),
}


def speed_assumptions(hardware: Hardware) -> str:
    """Return what the estimates assume, as text."""
    speeds = ASSUMED_SPEEDS[hardware.device]
    return f"estimate at an assumed {speeds.flops / 1e12:g} TFLOP/s, {speeds.memory / 1e9:g} GB/s"


def step_seconds(spec: RunSpec, hardware: Hardware) -> float:
    """Return the estimated seconds of one optimizer step on one rank of ``hardware``'s class."""
    speeds, config = ASSUMED_SPEEDS[hardware.device], spec.model.config
    bf16 = hardware.device != "cpu" and hardware.bf16
    plan = resolve_plan(spec, "cpu" if hardware.device == "mlx" else hardware.device, bf16)
    one = micro_batch_shape(spec, "cuda" if hardware.device == "cuda" else "cpu", plan)
    tokens, params = spec.tokens_per_step / spec.ranks, config.params
    recompute = _recomputed_flops(spec) if one.checkpointing in ("full", "offload") else 0.0
    seconds = tokens * (flops_per_token(config, spec.batch.context) + recompute) / speeds.flops
    layers = config.num_hidden_layers * spec.accum
    if one.checkpointing == "selective":  # what it recomputes is written and read once more
        whole, left = (sum(n for _, n in step.saved_for_backward(s)) for s in (replace(one, checkpointing="none"), one))
        seconds += layers * 2 * (whole - left) / speeds.memory
    if one.checkpointing == "offload" and hardware.device == "cuda":
        seconds += layers * 2 * one.stream_bytes / speeds.bus
    if spec.memory.strategy == "offload":
        # DeepSpeed fetches the gradient sums for every micro-batch but the first.
        transferred = (2 * spec.accum - 1) * one.width + one.width
        return seconds + params * (transferred / speeds.bus + 28 / speeds.host)
    passes = spec.accum * (3 * (one.grad_bytes or one.width) + (6 if one.casts_weights else 0))
    states = 16 if spec.memory.strategy == "states8bit" else 28  # read and written by the optimizer's step
    return seconds + params * (passes + states) / speeds.memory


def _recomputed_flops(spec: RunSpec) -> float:
    """Return the FLOPs per token of the blocks' forward, without the down projection, which backward does not need."""
    c = spec.model.config
    blocks = sum(2 * p.inputs * p.outputs * p.times for p in products(c)) - 2 * c.hidden_size * c.vocab_size
    down = 2 * c.intermediate_size * c.hidden_size * c.num_hidden_layers
    return blocks - down + attention_flops_per_token(c, spec.batch.context) / 3
