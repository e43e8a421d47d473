"""Where the optimizer's memory can lie, fastest first, and which of these ways fit a machine.

The order is that of what crosses the bus a step: on the device nothing does; 8-bit states add a little arithmetic;
offload sends every gradient to the host and every weight back, and waits for an optimizer on the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec

from engine.memory.forecast import Forecast, Forecaster, forecast
from engine.memory.hardware import Hardware
from profiles.spec import RunSpec

FASTEST_FIRST = ("device", "states8bit", "offload")


@dataclass(frozen=True, slots=True)
class Strategy:
    """One value of ``memory.strategy``, what it would hold, and whether that is free."""

    name: str
    forecast: Forecast
    fits: bool


def strategies(spec: RunSpec, hardware: Hardware, told: Forecaster = forecast) -> list[Strategy]:
    """Every way that ``spec`` leaves open here, fastest first. ``told`` forecasts."""
    found = []
    for name in FASTEST_FIRST:
        if is_open(name, spec, hardware):
            parts = told(replace(spec, memory=replace(spec.memory, strategy=name)), hardware)
            found.append(Strategy(name, parts, parts.fits(hardware)))
    return found


def with_strategy(spec: RunSpec, hardware: Hardware, told: Forecaster = forecast) -> RunSpec:
    """The same run with a strategy for this machine: of "auto" the fastest that fits, or else the smallest."""
    ways = strategies(spec, hardware, told) if spec.memory.strategy == "auto" else []
    if not ways:  # or the run contradicts itself; whoever checks it says how
        return spec
    smallest = min(ways, key=lambda way: (way.forecast.device_total, way.forecast.host_total))
    chosen = next((way for way in ways if way.fits), smallest)
    return replace(spec, memory=replace(spec.memory, strategy=chosen.name))


def is_open(name: str, spec: RunSpec, hardware: Hardware) -> bool:
    """Whether ``spec`` may be run that way here."""
    backend = spec.launch.backend
    if name == "states8bit":
        return backend in ("auto", "torch") and spec.optim.name == "adamw" and find_spec("torchao") is not None
    if name == "offload":
        # Without a card it is the same memory; there it is for those who ask for DeepSpeed.
        wanted = backend == "deepspeed" or (backend == "auto" and hardware.device == "cuda")
        return wanted and spec.optim.name == "adamw" and spec.train.precision != "bf16_sr"
    return backend != "deepspeed"
