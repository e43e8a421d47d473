"""Lists the memory strategies (where optimizer states are kept) that a run can use here, and resolves "auto".

They are ordered by the traffic they add to a step. "device" adds none; "states8bit" adds arithmetic; "offload" sends
every gradient to the host and every weight back, and waits for an optimizer on the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec

from engine.memory.forecast import Forecast, Forecaster, forecast
from engine.memory.hardware import Hardware
from profiles.spec import RunSpec

STRATEGIES_FASTEST_FIRST = ("device", "states8bit", "offload")


@dataclass(frozen=True, slots=True)
class Strategy:
    """A value of ``memory.strategy``, its forecast, and whether that fits in the free memory."""

    name: str
    forecast: Forecast
    fits: bool


def available_strategies(spec: RunSpec, hardware: Hardware, forecaster: Forecaster = forecast) -> list[Strategy]:
    """Return the strategies that ``spec`` allows on ``hardware``, fastest first."""
    found = []
    for name in STRATEGIES_FASTEST_FIRST:
        if is_available(name, spec, hardware):
            parts = forecaster(replace(spec, memory=replace(spec.memory, strategy=name)), hardware)
            found.append(Strategy(name, parts, parts.fits(hardware)))
    return found


def resolve_strategy(spec: RunSpec, hardware: Hardware, forecaster: Forecaster = forecast) -> RunSpec:
    """Return ``spec`` with "auto" replaced by the fastest strategy that fits, or by the smallest if none fits."""
    options = available_strategies(spec, hardware, forecaster) if spec.memory.strategy == "auto" else []
    if not options:  # or the spec contradicts itself: preflight says how
        return spec
    smallest = min(options, key=lambda option: (option.forecast.device_total, option.forecast.host_total))
    chosen = next((option for option in options if option.fits), smallest)
    return replace(spec, memory=replace(spec.memory, strategy=chosen.name))


def is_available(name: str, spec: RunSpec, hardware: Hardware) -> bool:
    """Return whether ``spec`` can use the strategy ``name`` on ``hardware``."""
    backend = spec.launch.backend
    if name == "states8bit":
        return backend in ("auto", "torch") and spec.optim.name == "adamw" and find_spec("torchao") is not None
    if name == "offload":
        # Without a card, offload moves nothing: it is available only to those who ask for DeepSpeed.
        wanted = backend == "deepspeed" or (backend == "auto" and hardware.device == "cuda")
        return wanted and spec.optim.name == "adamw" and spec.train.precision != "bf16_sr"
    return backend != "deepspeed"
