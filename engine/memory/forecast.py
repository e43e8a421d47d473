"""The memory of a run before it starts: bytes by part, for the device and for the host.

The tensors of one micro-batch are walked through as autograd makes and drops them (``step``, ``block``, ``head``,
``attention``); what stays from step to step is counted (``states``); what a process takes by itself is measured or, for
a card that nobody has tried yet, assumed, and named so in docs/memory.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.execution.plan import ExecutionPlan, resolve_plan
from engine.memory import mlx, states, step
from engine.memory.hardware import Hardware
from engine.memory.model_shape import BF16, CASTS, FP32, Shape
from engine.memory.states import optimizer_bytes as optimizer_bytes
from engine.memory.states import weight_bytes as weight_bytes
from profiles.spec import RunSpec

MIB = 1 << 20
PROCESS = 370 * MIB  # Python with torch; this and CPU_SLACK were measured on a CPU (docs/memory.md)
PROCESS_CUDA = 1536 * MIB  # the same with CUDA's libraries loaded; assumed
CONTEXT = 512 * MIB  # a CUDA context, cuBLAS's and the kernels' own memory; assumed
# What the allocator holds beyond what is asked of it, as a share of all that comes and goes; assumed on a card.
SLACK = 0.05
CPU_SLACK = 0.12
WIDEST_FLASH = 256
PIECE = 16 * MIB  # of a card's tensor: a checkpoint is written by these


@dataclass(frozen=True, slots=True)
class Forecast:
    """Bytes by part at the fullest moment, for the device and for the host.

    ``saving`` is what the host holds besides while a checkpoint is written.
    """

    device: dict[str, int]
    host: dict[str, int]
    saving: int = 0

    @property
    def device_total(self) -> int:
        return sum(self.device.values())

    @property
    def host_total(self) -> int:
        return sum(self.host.values())

    def fits(self, hardware: Hardware) -> bool:
        """Whether the free memory of ``hardware`` holds it; unified memory holds device and host together."""
        if hardware.device == "mlx":
            return self.device_total + self.host_total <= hardware.ram_free
        on_device = hardware.device_free is None or self.device_total <= hardware.device_free
        return on_device and self.host_total <= hardware.ram_free


Forecaster = Callable[[RunSpec, Hardware], Forecast]


def forecast(spec: RunSpec, hardware: Hardware) -> Forecast:
    """What ``spec`` would hold at its fullest on ``hardware``. No torch, below 5 ms: fit for every key press.

    Of several ranks: a device's parts are one rank's, the host's those of all its ranks.
    """
    if hardware.device == "mlx" or spec.launch.backend == "mlx":
        device, host = mlx.parts(spec, bf16=_bf16(spec, hardware)), {"process": PROCESS}
        return Forecast(device, host) if hardware.device == "mlx" else Forecast({}, device | host)
    plan = resolve_plan(spec, hardware.device, bf16=hardware.device == "cuda")
    device = _training(spec, hardware, plan)
    host, stepping = _offloaded(spec, hardware, plan)
    saving, ranks = _saving(spec, hardware), spec.launch.gpus_per_node
    if hardware.device == "cpu":
        held = {part: device[part] for part in ("weights", "buckets") if part in device} | stepping
        host |= _fullest(device, held)
        host["allocator slack"] = int(CPU_SLACK * sum(host.get(part, 0) for part in _COMES_AND_GOES))
        return Forecast({}, _of_all(ranks, host | {"process": PROCESS}), saving)
    device["allocator slack"] = int(SLACK * sum(device.get(part, 0) for part in _COMES_AND_GOES))
    host |= stepping | {"process": PROCESS_CUDA}
    return Forecast(device | {"CUDA context": CONTEXT}, _of_all(ranks, host), saving)


def _fullest(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return one if sum(one.values()) >= sum(other.values()) else other


def _of_all(ranks: int, parts: dict[str, int]) -> dict[str, int]:
    return {part: size * ranks for part, size in parts.items() if size}


ALLOCATED_NOT = ("CUDA context", "allocator slack")  # of a device: what its allocator does not count as allocated
_COMES_AND_GOES = ("activations", "attention", "logits", CASTS, "batch and rope", "optimizer workspace")


def shape(spec: RunSpec, device: str, plan: ExecutionPlan) -> Shape:
    """The tensors of one micro-batch of ``spec`` on ``device`` (cuda or cpu)."""
    config, offloaded = spec.model.config, spec.memory.strategy == "offload"
    width = BF16 if plan.bf16 else FP32
    weight = width if offloaded or plan.precision == "bf16_sr" else FP32
    attention = plan.attention
    if attention == "sdpa":
        equal = config.qk_head_dim == config.v_head_dim
        attention = "flash" if device == "cuda" or equal else "math"
    return Shape(
        config=config,
        sequences=spec.batch.micro,
        context=spec.batch.context,
        width=width,
        device=device,
        attention=attention,
        compiled=plan.compiled,
        checkpointing=plan.checkpointing,
        loss=plan.loss,
        weight=weight,
        bucket=states.zero_bucket(config, width) if offloaded else 0,
        sum=0 if offloaded else _summed(spec, plan),
        grow=spec.accum == 1 and not offloaded,
    )


def _bf16(spec: RunSpec, hardware: Hardware) -> bool:
    return spec.train.precision == "bf16" or (spec.train.precision == "auto" and hardware.device == "mlx")


def _summed(spec: RunSpec, plan: ExecutionPlan) -> int:
    """Bytes of a matrix's gradient: of bf16 weights a sum is fp32, a single micro-batch's stays bf16."""
    return BF16 if plan.precision == "bf16_sr" and spec.accum == 1 else FP32


def _training(spec: RunSpec, hardware: Hardware, plan: ExecutionPlan) -> dict[str, int]:
    """The parts of one rank where the arithmetic is done, at the fullest of its moments."""
    one = shape(spec, hardware.device, plan)
    if spec.memory.strategy == "offload":
        held = states.zero_device(spec.model.config, one.width)
        return step.peak(one, tuple(held.items()))
    summed = _summed(spec, plan)
    held = {"weights": weight_bytes(spec), "optimizer": optimizer_bytes(spec)}
    gradients = {"gradients": states.gradient_bytes(spec, summed)}
    micro_batch = step.peak(one, tuple((held if one.grow else held | gradients).items()))
    stepping = held | gradients | {"optimizer workspace": states.workspace_bytes(spec, summed, plan.compiled)}
    return _fullest(micro_batch, stepping)


def _offloaded(spec: RunSpec, hardware: Hardware, plan: ExecutionPlan) -> tuple[dict[str, int], dict[str, int]]:
    """What one rank keeps in RAM for its device's sake, and what comes on top while its optimizer steps there."""
    config, parts, stepping = spec.model.config, {}, {}
    pinned = hardware.device == "cuda"
    width = BF16 if plan.bf16 else FP32
    if spec.memory.strategy == "offload":
        zero = states.zero_host(config, width, spec.ranks, pinned)
        parts = {f"offloaded {part}": size for part, size in zero.items()}
        stepping = {"optimizer workspace": states.zero_workspace(config, width)}
    if plan.checkpointing == "offload" and pinned:
        stream = spec.batch.micro * spec.batch.context * config.hidden_size * width
        parts["offloaded stream"] = config.num_hidden_layers * states.pinned_bytes(stream)
    return parts, stepping


def _saving(spec: RunSpec, hardware: Hardware) -> int:
    """Bytes of RAM that writing a checkpoint takes besides: a card's tensors pass through it in pieces, the next one
    fetched while the last is held; of several DeepSpeed ranks the first gathers all. What is in RAM is written as it
    lies."""
    if spec.memory.strategy == "offload":
        return 3 * FP32 * spec.model.config.params if spec.ranks > 1 else 0
    return 2 * PIECE if hardware.device == "cuda" else 0
