"""Predicts tokens per second by a roofline, and corrects it by what runs of this machine reached.

A step's time is the sum of its matrix products, Muon's too, at a fraction of the device's peak, its passes over
weights, gradients and states at the memory's bandwidth, and its transfers at the bus's. Recomputation and the number
of passes are counted from the model's shapes. The speeds are those of a class of device until a run has been measured
here.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from engine.execution.peak_flops import peak
from engine.execution.plan import resolve_plan
from engine.host.cores import cores
from engine.host.instruction_sets import bf16_speed
from engine.memory import step
from engine.memory.calibration import PastRun, backend_of, speed_key
from engine.memory.forecast import micro_batch_shape
from engine.memory.hardware import Hardware, hardware_used
from engine.memory.model_shape import BF16, FP32
from engine.memory.search.micro import with_micro
from engine.memory.states import optimizer_bytes
from model.flops import attention_flops_per_token, flops_per_token, newton_schulz_flops, products
from profiles.spec import RunSpec

MEASURED, CALIBRATED, ESTIMATED = "measured here", "calibrated", "estimated"
# Of the published peak, where nothing was measured: a little less than others report of GeForce cards (llmq 77–85%) and
# of an H100 (47–60%). At that, GeForce cards of 2025 do 100 FLOPs in bf16 a byte of memory.
_GEFORCE, _OTHERS = 0.71, 0.5
_FLOPS_A_BYTE, _FASTEST_MEMORY = 100, 2.5e12
# Core seconds a value to draw the random bits of bf16 weights (docs/performance.md); assumed of 8-bit moments too.
_ROUNDING = 12e-9
_SHORT = 5e-3  # seconds of a micro-batch; starting its operations and recording a step take longer than these few
MAX_FLOPS_RATIO = 4.0  # how many times more or less FLOPs a token may take in a run that corrects a prediction


@dataclass(frozen=True, slots=True)
class Speeds:
    """FLOP/s of matrix products; bytes/s of the device's memory, of the bus and of the host's memory; their source."""

    flops: float
    memory: float
    bus: float
    host: float
    source: str


@dataclass(frozen=True, slots=True)
class Rate:
    """Predicted tokens per second of all ranks, and what the prediction rests on.

    ``plain`` is the prediction without any measurement, from the speeds of ``source``: by it two specs compare whatever
    else the machine did.
    """

    tok_s: float
    plain: float
    source: str
    kind: str  # MEASURED, CALIBRATED or ESTIMATED
    basis: str


def device_speeds(hardware: Hardware, precision: str) -> Speeds:
    """Return what is assumed of ``hardware``: a 16 GB card of 2025, an M4 Pro, or cores as in docs/performance.md."""
    if hardware.device == "cuda":
        known = peak(hardware.name, "bf16" if precision.startswith("bf16") else "fp32")
        fraction = _GEFORCE if "GeForce" in hardware.name else _OTHERS
        flops = known.flops_per_s * fraction if known else 80e12 if precision.startswith("bf16") else 30e12
        memory = min(flops / _FLOPS_A_BYTE, _FASTEST_MEMORY)
        source = f"{fraction:.0%} of the published {known.flops_per_s / 1e12:g} TFLOP/s" if known else "assumed"
        text = f"{source}{'' if known else f' {flops / 1e12:g} TFLOP/s'}, {memory / 1e9:.0f} GB/s, bus 20 GB/s"
        return Speeds(flops, memory, 20e9, 40e9, text)
    if hardware.device == "mlx":
        return Speeds(6e12, 220e9, 220e9, 220e9, "assumed 6 TFLOP/s, 220 GB/s")
    flops = 0.15e12 * cores() * (bf16_speed() if precision.startswith("bf16") else 1.0)
    return Speeds(flops, 20e9, 20e9, 20e9, f"assumed {flops / 1e12:g} TFLOP/s of {cores()} cores, 20 GB/s")


class SpeedModel:
    """Predicts the speed of specs on ``hardware``; ``past_runs`` are those measured on it."""

    def __init__(self, hardware: Hardware, past_runs: Sequence[PastRun]) -> None:
        self._hardware = hardware
        self._measured = [run for run in past_runs if run.speed is not None]

    def of(self, spec: RunSpec) -> Rate:
        """Return the rate of ``spec``, whose settings are all chosen."""
        seconds, speeds = step_seconds(spec, self._hardware)
        predicted = spec.tokens_per_step / seconds
        key, per_token = speed_key(spec), flops_per_token(spec.model.config, spec.batch.context)
        backend = backend_of(spec)
        found = [run.speed for run in self._measured if run.speed is not None and run.backend == backend]
        if same := [one.tok_s for one in found if one.key == key]:
            return Rate(statistics.median(same), predicted, speeds.source, MEASURED, MEASURED)
        ratios = [
            one.tok_s / one.predicted
            for one in found
            if 1 / MAX_FLOPS_RATIO <= one.flops_per_token / per_token <= MAX_FLOPS_RATIO
        ]
        if ratios:
            ratio, count = statistics.median(ratios), len(ratios)
            runs = f"{count} measurement{'s' if count > 1 else ''}"
            factor = f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"
            return Rate(
                predicted * ratio,
                predicted,
                speeds.source,
                CALIBRATED,
                f"calibrated ×{factor} by {runs} of this machine",
            )
        most = "; an upper bound: so short a step is mostly overhead" if seconds / spec.accum < _SHORT else ""
        return Rate(predicted, predicted, speeds.source, ESTIMATED, f"{speeds.source}{most}")


def step_seconds(spec: RunSpec, hardware: Hardware) -> tuple[float, Speeds]:
    """Return the estimated seconds of one optimizer step, and the speeds that they assume."""
    config, hardware = spec.model.config, hardware_used(spec, hardware)
    bf16 = hardware.device != "cpu" and hardware.bf16
    plan = resolve_plan(spec, "cpu" if hardware.device == "mlx" else hardware.device, bf16)
    speeds = device_speeds(hardware, plan.precision)
    one = micro_batch_shape(with_micro(spec, 1), "cuda" if hardware.device == "cuda" else "cpu", plan)
    tokens, params = spec.tokens_per_step / spec.ranks, config.params
    recompute = _recomputed_flops(spec) if plan.checkpointing in ("full", "offload") else 0.0
    seconds = tokens * (flops_per_token(config, spec.batch.context) + recompute) / speeds.flops
    blocks = config.num_hidden_layers * spec.accum * spec.batch.micro  # of one sequence each
    if plan.checkpointing == "selective":  # what it recomputes is written and read once more
        whole, left = (sum(n for _, n in step.saved_for_backward(s)) for s in (replace(one, checkpointing="none"), one))
        seconds += blocks * 2 * (whole - left) / speeds.memory
    if plan.checkpointing == "offload" and hardware.device == "cuda":
        seconds += blocks * 2 * one.stream_bytes / speeds.bus
    muon, moments = spec.optim.name == "muon", 2 * optimizer_bytes(spec) / params  # read and written
    if muon:  # under any precision in bf16, on a CPU in fp32; with DeepSpeed a rank orthogonalizes its partition
        share = 1 / spec.ranks if spec.memory.strategy == "offload" else 1.0
        speed = device_speeds(hardware, "bf16" if bf16 else "fp32").flops
        seconds += share * newton_schulz_flops(config) / speed
    if spec.memory.strategy == "offload":
        # DeepSpeed fetches the gradient sums for every micro-batch but the first. An update of Muon crosses twice.
        transferred = (2 * spec.accum - 1) * one.width + one.width + (2 * BF16 if muon else 0)
        stepped = 3 * FP32 + moments + (4 * FP32 if muon else 0)  # its update is written and read on both ways
        return seconds + params * (transferred / speeds.bus + stepped / speeds.host), speeds
    gradient = BF16 if spec.train.precision == "bf16_sr" and spec.accum == 1 else FP32
    passes = spec.accum * (3 * gradient + (6 if one.casts_weights else 0))
    update = 2 * one.weight_width + moments + gradient
    if hardware.device == "cpu":
        lowered = (spec.train.precision == "bf16_sr") + (spec.memory.strategy == "states8bit")
        seconds += lowered * params * _ROUNDING / cores()
    return seconds + params * (passes + update) / speeds.memory, speeds


def _recomputed_flops(spec: RunSpec) -> float:
    """Return the FLOPs per token of the blocks' forward, without the down projection, which backward does not need."""
    c = spec.model.config
    blocks = sum(2 * p.inputs * p.outputs * p.times for p in products(c)) - 2 * c.hidden_size * c.vocab_size
    down = 2 * c.intermediate_size * c.hidden_size * c.num_hidden_layers
    return blocks - down + attention_flops_per_token(c, spec.batch.context) / 3
