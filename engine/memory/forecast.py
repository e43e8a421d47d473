"""Forecasts a run's memory before it starts: bytes by part, for the device and for the host.

It walks through the tensors of one micro-batch as autograd allocates and frees them (``step``, ``block``, ``head``,
``attention``) and counts what persists between steps (``states``). The memory of the process itself is measured or, for
a card that was never measured, assumed; docs/memory.md says which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from engine.execution.allocator import pinned_bytes
from engine.execution.plan import ExecutionPlan, resolve_plan
from engine.memory import mlx, states, step
from engine.memory.hardware import Hardware, hardware_used
from engine.memory.model_shape import BF16, CASTS, FP32, Shape
from engine.memory.states import average_bytes, optimizer_bytes, weight_bytes
from profiles.spec import RunSpec

MIB = 1 << 20
# Python with torch, torch's compiler where something imports it, DeepSpeed with both, and CPU_SLACK: fitted on a CPU
# (docs/memory.md).
PROCESS = 300 * MIB
COMPILER = 70 * MIB
DEEPSPEED = 140 * MIB
PROCESS_CUDA = 1536 * MIB  # with CUDA's libraries loaded; assumed
CONTEXT = 512 * MIB  # CUDA context, cuBLAS workspaces and kernels; assumed
# What the allocator holds beyond the live tensors, as a fraction of the temporary ones; assumed on a card.
SLACK = 0.05
CPU_SLACK = 0.30
TOKEN_ID = 8  # bytes of an id in a batch
COPY_CHUNK = 16 * MIB  # a checkpoint copies a card's tensors to the host in chunks of this size


@dataclass(frozen=True, slots=True)
class Forecast:
    """Bytes by part at the peak, for the device and for the host.

    ``saving`` is what the host needs on top while a checkpoint is written.
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
        """Return whether it fits in the free memory of ``hardware``; unified memory holds device and host parts."""
        if hardware.device == "mlx":
            return self.device_total + self.host_total <= hardware.ram_free
        on_device = hardware.device_free is None or self.device_total <= hardware.device_free
        return on_device and self.host_total <= hardware.ram_free


Forecaster = Callable[[RunSpec, Hardware], Forecast]


def forecast(spec: RunSpec, hardware: Hardware) -> Forecast:
    """Return the peak memory of ``spec`` on ``hardware``. Needs no torch and less than 5 ms.

    With several ranks, the device's parts are one rank's and the host's are those of all its ranks.
    """
    hardware = hardware_used(spec, hardware)
    if hardware.device == "mlx" or spec.launch.backend == "mlx":
        device, host = mlx.parts(spec, bf16=_bf16(spec, hardware)), {"process": PROCESS + _sequences(spec)}
        return Forecast(device, host) if hardware.device == "mlx" else Forecast({}, device | host)
    plan = resolve_plan(spec, hardware.device, bf16=hardware.device == "cuda" and hardware.bf16)
    device = _training(spec, hardware, plan)
    host, stepping = _offloaded(spec, hardware, plan)
    saving, ranks = _saving(spec, hardware), spec.launch.gpus_per_node
    average = {"weight average": _average(spec)} if spec.optim.ema else {}
    if hardware.device == "cpu":
        optimizer_step = {part: device[part] for part in ("weights", "buckets") if part in device} | stepping
        host |= _larger(device, optimizer_step)
        host["allocator slack"] = int(CPU_SLACK * sum(host.get(part, 0) for part in _TEMPORARY))
        process = PROCESS + _libraries(spec, plan) + _sequences(spec)
        return Forecast({}, _times(ranks, host | {"process": process}) | average, saving)
    device["allocator slack"] = int(SLACK * sum(device.get(part, 0) for part in _TEMPORARY))
    host |= stepping | {"process": PROCESS_CUDA + _sequences(spec)}
    return Forecast(device | {"CUDA context": CONTEXT}, _times(ranks, host) | average, saving)


def _average(spec: RunSpec) -> int:
    """Return the bytes of the average of the weights on one machine: DeepSpeed partitions it, else rank 0 has it."""
    whole = average_bytes(spec)
    return whole * spec.launch.gpus_per_node // spec.ranks if spec.memory.strategy == "offload" else whole


def _libraries(spec: RunSpec, plan: ExecutionPlan) -> int:
    """Return the bytes of what the run imports besides torch: its compiler is also imported by what never compiles."""
    if spec.memory.strategy == "offload":
        return DEEPSPEED
    needed = plan.checkpointing != "none" or spec.memory.strategy == "states8bit"
    return COMPILER if plan.compiled or needed else 0


def _sequences(spec: RunSpec) -> int:
    """Return the bytes of the sequences that each rank holds: those of a step, and those read ahead for the next."""
    steps = 2 if spec.data.workers else 1
    return steps * spec.batch.sequences * (spec.batch.context + 1) * TOKEN_ID


def _larger(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return one if sum(one.values()) >= sum(other.values()) else other


def _times(ranks: int, parts: dict[str, int]) -> dict[str, int]:
    return {part: size * ranks for part, size in parts.items() if size}


NOT_ALLOCATED = ("CUDA context", "allocator slack")  # parts of a device that its allocator does not count as allocated
_TEMPORARY = ("activations", "attention", "logits", CASTS, "batch and rope", "optimizer workspace")


def temporary_bytes(parts: Mapping[str, int]) -> int:
    """Return the bytes of the parts that are free again between two steps."""
    return sum(parts.get(part, 0) for part in (*_TEMPORARY, "allocator slack"))


def weight_width(spec: RunSpec, hardware: Hardware) -> int:
    """Return the bytes of a weight on the device: fp32 masters, or bf16 under bf16_sr and DeepSpeed's bf16."""
    hardware = hardware_used(spec, hardware)
    plan = resolve_plan(spec, hardware.device, bf16=hardware.device == "cuda" and hardware.bf16)
    return _weight_width(spec, plan)


def _weight_width(spec: RunSpec, plan: ExecutionPlan) -> int:
    in_bf16 = plan.precision == "bf16_sr" or (plan.bf16 and spec.memory.strategy == "offload")
    return BF16 if in_bf16 else FP32


def micro_batch_shape(spec: RunSpec, device: str, plan: ExecutionPlan) -> Shape:
    """Return the shape of one micro-batch of ``spec`` on ``device`` (cuda or cpu)."""
    config, offloaded = spec.model.config, spec.memory.strategy == "offload"
    width = BF16 if plan.bf16 else FP32
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
        documents=spec.data.documents == "mask",
        checkpointing=plan.checkpointing,
        loss=plan.loss,
        weight_width=_weight_width(spec, plan),
        bucket_bytes=states.zero_bucket(config, width) if offloaded else 0,
        grad_bytes=0 if offloaded else _grad_width(spec, plan),
        creates_grads=spec.accum == 1 and not offloaded and not _in_buckets(spec, plan),
    )


def _bf16(spec: RunSpec, hardware: Hardware) -> bool:
    return spec.train.precision == "bf16" or (spec.train.precision == "auto" and hardware.device == "mlx")


def _in_buckets(spec: RunSpec, plan: ExecutionPlan) -> bool:
    """Return whether the gradients lie in buckets that are kept: several ranks sum fp32 ones during the backward."""
    return spec.ranks > 1 and plan.precision != "bf16_sr"


def _grad_width(spec: RunSpec, plan: ExecutionPlan) -> int:
    """Return the bytes of a gradient value: bf16 weights accumulate in fp32, a single micro-batch stays bf16."""
    return BF16 if plan.precision == "bf16_sr" and spec.accum == 1 else FP32


def _training(spec: RunSpec, hardware: Hardware, plan: ExecutionPlan) -> dict[str, int]:
    """Return one rank's parts on the compute device, at the peak of the step."""
    one = micro_batch_shape(spec, hardware.device, plan)
    if spec.memory.strategy == "offload":
        held = states.zero_device(spec.model.config, one.width)
        return step.peak_parts(one, tuple(held.items()))
    grad_width = _grad_width(spec, plan)
    held = {"weights": weight_bytes(spec), "optimizer": optimizer_bytes(spec)}
    gradients = {"gradients": states.gradient_bytes(spec, grad_width)}
    micro_batch = step.peak_parts(one, tuple((held if one.creates_grads else held | gradients).items()))
    workspace = states.workspace_bytes(spec, grad_width, plan.compiled, hardware.device)
    return _larger(micro_batch, held | gradients | {"optimizer workspace": workspace})


def _offloaded(spec: RunSpec, hardware: Hardware, plan: ExecutionPlan) -> tuple[dict[str, int], dict[str, int]]:
    """Return what one rank offloads to RAM, and what its optimizer step needs there on top."""
    config, parts, stepping = spec.model.config, {}, {}
    pinned = hardware.device == "cuda"
    width = BF16 if plan.bf16 else FP32
    if spec.memory.strategy == "offload":
        zero = states.zero_host(spec, width, pinned)
        parts = {f"offloaded {part}": size for part, size in zero.items()}
        stepping = {"optimizer workspace": states.zero_workspace(spec, width, hardware.device)}
    if plan.checkpointing == "offload" and pinned:
        stream = spec.batch.micro * spec.batch.context * config.hidden_size * width
        parts["offloaded stream"] = config.num_hidden_layers * pinned_bytes(stream)
    return parts, stepping


def _saving(spec: RunSpec, hardware: Hardware) -> int:
    """Return the bytes of RAM that writing a checkpoint needs on top: two chunks of a card's tensors; with several
    DeepSpeed ranks, everything that rank 0 gathers. Tensors in RAM are written without a copy."""
    if spec.memory.strategy == "offload":
        gathered = FP32 * spec.model.config.params + optimizer_bytes(spec) + average_bytes(spec)
        return gathered if spec.ranks > 1 else 0
    return 2 * COPY_CHUNK if hardware.device == "cuda" else 0
