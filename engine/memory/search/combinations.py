"""Enumerates memory strategy × checkpointing × precision × loss for a spec, with what forbids each combination.

What is not installed, or lowers the precision of masters or moments below what ``memory.allow`` names, is enumerated
too, with the reason: it is offered to a user, and never chosen for one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec

from engine.execution.dependencies import OR_TORCH, deepspeed_problem
from engine.memory.hardware import Hardware, hardware_used
from profiles.install_command import install_extra
from profiles.spec import AUTO, RunSpec

# The traffic that each adds to a step grows: none, arithmetic, every gradient and weight over the bus.
STRATEGIES = ("device", "states8bit", "offload")
CHECKPOINTING = ("none", "selective", "full", "offload")
NUMERICS = {
    "states8bit": "moments in 8 bits",
    "offload": "gradients summed in bf16",
    "bf16_sr": "bf16 weights, stochastic rounding",
}


@dataclass(frozen=True, slots=True)
class Combination:
    """Values of ``memory.strategy``, ``memory.checkpointing``, ``train.precision`` and ``memory.loss``."""

    strategy: str
    checkpointing: str
    precision: str
    loss: str

    def of(self, spec: RunSpec) -> RunSpec:
        """Return ``spec`` with these values."""
        memory = replace(spec.memory, strategy=self.strategy, checkpointing=self.checkpointing, loss=self.loss)
        return replace(spec, memory=memory, train=replace(spec.train, precision=self.precision))

    @property
    def numerics(self) -> list[str]:
        """What it changes of the arithmetic of a step, against fp32 masters and moments."""
        return [NUMERICS[value] for value in (self.strategy, self.precision) if value in NUMERICS]

    @property
    def lowered(self) -> int:
        """How many of masters and moments have less than fp32."""
        return (self.strategy == "states8bit") + (self.precision == "bf16_sr")


def current(spec: RunSpec, hardware: Hardware) -> Combination:
    """Return the combination of ``spec``; what is "auto" is what a trainer makes of it: device, none, its precision."""
    strategy = "device" if spec.memory.strategy == AUTO else spec.memory.strategy
    checkpointing = "none" if spec.memory.checkpointing == AUTO else spec.memory.checkpointing
    precision = _base_precision(spec, hardware_used(spec, hardware))
    return Combination(strategy, checkpointing, precision, spec.memory.loss)


def combinations(spec: RunSpec, hardware: Hardware, *, fixed: bool) -> Iterator[Combination]:
    """Yield the combinations that backend and optimizer of ``spec`` can run on ``hardware``.

    ``fixed``: what the spec says is kept, and only what is "auto" varies.
    """
    memory, train, hardware = spec.memory, spec.train, hardware_used(spec, hardware)
    base = _base_precision(spec, hardware)
    losses = (memory.loss,) if fixed or memory.loss == "fused" else ("plain", "fused")
    kinds = _checkpointing(spec, hardware)
    if fixed and memory.checkpointing != AUTO:
        kinds = (memory.checkpointing,)
    strategies = _strategies(spec, hardware)
    if fixed and memory.strategy != AUTO:
        strategies = (memory.strategy,)
    for strategy in strategies:
        for precision in dict.fromkeys((base, "bf16_sr")):
            if precision == "bf16_sr" != base and (
                (fixed and train.precision != AUTO) or strategy == "offload" or not _keeps_masters(spec, hardware)
            ):
                continue
            for kind in kinds:
                yield from (Combination(strategy, kind, precision, loss) for loss in losses)


def possible(spec: RunSpec, hardware: Hardware) -> set[Combination]:
    """Return every combination that ``spec`` leaves open, or that it could have instead."""
    return {one for fixed in (True, False) for one in combinations(spec, hardware, fixed=fixed)}


def forbidden(combination: Combination, spec: RunSpec) -> str:
    """Return why "auto" does not choose ``combination``, with the way out; empty where it may."""
    if combination.strategy == "states8bit" and find_spec("torchao") is None:
        return f"torchao is not installed: {install_extra('torchao')}"
    if combination.strategy == "offload" and (problem := deepspeed_problem()):
        return problem.removesuffix(OR_TORCH)
    wanted = (
        (combination.strategy, spec.memory.strategy),
        (combination.precision, spec.train.precision),
    )
    lacking = [name for name, said in wanted if name in ("states8bit", "bf16_sr") and said != name]
    lacking = [name for name in lacking if name not in spec.memory.allow]
    return f"memory.allow does not name {' and '.join(lacking)}" if lacking else ""


def _base_precision(spec: RunSpec, hardware: Hardware) -> str:
    """Return the precision of ``spec``, or for "auto" what the device computes fastest with fp32 masters."""
    if spec.train.precision != AUTO:
        return spec.train.precision
    if spec.launch.backend == "mlx" or hardware.device == "mlx":
        return "bf16" if hardware.device == "mlx" else "fp32"
    return "bf16" if hardware.device == "cuda" and hardware.bf16 else "fp32"


def _strategies(spec: RunSpec, hardware: Hardware) -> tuple[str, ...]:
    backend = spec.launch.backend
    if backend == "mlx" or hardware.device == "mlx":
        return ("device",)
    # Without a card, offload moves nothing: it is there only for those who ask for DeepSpeed.
    deepspeed = backend == "deepspeed" or (backend == AUTO and hardware.device == "cuda")
    available = {
        "device": backend != "deepspeed",
        "states8bit": backend in (AUTO, "torch") and spec.optim.name == "adamw",
        "offload": deepspeed and spec.train.precision != "bf16_sr",
    }
    return tuple(name for name in STRATEGIES if available[name])


def _keeps_masters(spec: RunSpec, hardware: Hardware) -> bool:
    """Return whether fp32 masters could be dropped: the torch backend has an optimizer for bf16 weights."""
    return spec.launch.backend in (AUTO, "torch") and hardware.device != "mlx"


def _checkpointing(spec: RunSpec, hardware: Hardware) -> tuple[str, ...]:
    """Return the kinds of checkpointing. Only a card can offload to the host; MLX has "none" and "full"."""
    if spec.launch.backend == "mlx" or hardware.device == "mlx":
        return ("none", "full")
    return CHECKPOINTING if hardware.device == "cuda" else CHECKPOINTING[:3]
