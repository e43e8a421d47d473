"""What a step costs in time, roughly: enough to rank the ways of saving memory, too rough to promise a speed.

A step takes as long as its matrix products at the device's speed, the passes over weights, gradients and states at its
memory's, and what crosses the bus, one after the other. The speeds are assumptions about a class of device, not about
the one at hand; what is worked out twice and how often weights are passed over is counted.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from engine.execution.plan import resolve_plan
from engine.memory import step
from engine.memory.forecast import shape
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


# Of a 16 GB card of 2025 (about half of what its maker says), of two cores here (docs/performance.md), of an M4 Pro.
ASSUMED = {
    "cuda": Speeds(80e12, 800e9, 20e9, 40e9),
    "cpu": Speeds(0.3e12, 20e9, 20e9, 20e9),
    "mlx": Speeds(6e12, 220e9, 220e9, 220e9),
}


def basis(hardware: Hardware) -> str:
    """What the seconds rest on, in a few words for a person."""
    speeds = ASSUMED[hardware.device]
    return f"estimate at an assumed {speeds.flops / 1e12:g} TFLOP/s, {speeds.memory / 1e9:g} GB/s"


def step_seconds(spec: RunSpec, hardware: Hardware) -> float:
    """The estimated seconds of one optimizer step on one rank of ``hardware``'s class."""
    speeds, config = ASSUMED[hardware.device], spec.model.config
    plan = resolve_plan(spec, "cpu" if hardware.device == "mlx" else hardware.device, hardware.device != "cpu")
    one = shape(spec, "cuda" if hardware.device == "cuda" else "cpu", plan)
    tokens, params = spec.tokens_per_step / spec.ranks, config.params
    again = _forward_again(spec) if one.checkpointing in ("full", "offload") else 0.0
    seconds = tokens * (flops_per_token(config, spec.batch.context) + again) / speeds.flops
    layers = config.num_hidden_layers * spec.accum
    if one.checkpointing == "selective":  # what it throws away is written and read once more
        whole, left = (sum(size for _, size in step.kept(each)) for each in (replace(one, checkpointing="none"), one))
        seconds += layers * 2 * (whole - left) / speeds.memory
    if one.checkpointing == "offload" and hardware.device == "cuda":
        seconds += layers * 2 * one.stream / speeds.bus
    if spec.memory.strategy == "offload":
        crossing = (2 * spec.accum - 1) * one.width + one.width  # sums come back for every micro-batch but the first
        return seconds + params * (crossing / speeds.bus + 28 / speeds.host)
    passes = spec.accum * (3 * (one.sum or one.width) + (6 if one.casts else 0))
    states = 16 if spec.memory.strategy == "states8bit" else 28  # read and written by the optimizer's step
    return seconds + params * (passes + states) / speeds.memory


def _forward_again(spec: RunSpec) -> float:
    """FLOPs a token of the blocks' forward, which backward does a second time; the last product is not asked for."""
    c = spec.model.config
    blocks = sum(2 * p.inputs * p.outputs * p.times for p in products(c)) - 2 * c.hidden_size * c.vocab_size
    down = 2 * c.intermediate_size * c.hidden_size * c.num_hidden_layers
    return blocks - down + attention_flops_per_token(c, spec.batch.context) / 3
