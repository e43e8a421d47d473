"""Predicts before a launch whether a run fits into the memory of this machine, and with which micro-batch.

A forecast has an error, and free memory changes while a run waits or trains. So a run is called impossible only where
even the lowest peak that the forecast allows is more than the machine has in all; a run that needs more than is free
now gets a warning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from engine.memory.calibration import PastRun, calibrated_forecaster
from engine.memory.forecast import Forecast
from engine.memory.hardware import Hardware, hardware_used
from engine.memory.headroom import Headroom, headroom_by_memory
from engine.memory.search.micro import largest, micro_divisors
from engine.memory.search.remedy import remedy
from profiles.spec import RunSpec

GIB = 1 << 30
# How far above the measured peak a forecast has been, as a fraction of it (docs/memory.md, "Accuracy"): of tensors on a
# card, of resident memory on a CPU, and of MLX.
ERROR = {"cuda": 0.02, "cpu": 0.08, "mlx": 0.20}
# Parts of a run on a GPU that are assumed, not measured; they do not count against a launch.
ASSUMED = ("CUDA context", "allocator slack", "process")
NAMES = {"device": "device memory", "host": "host memory", "unified": "memory"}


@dataclass(frozen=True, slots=True)
class LaunchFit:
    """What is predicted about the memory of a run. ``text`` is one line, empty where the run fits into what is free.

    ``possible`` is False where the run cannot have a step done: at micro 1, or at its own micro if it may not change it
    (``memory.oom = "fail"``).
    """

    text: str
    possible: bool


def launch_fit(spec: RunSpec, hardware: Hardware, past_runs: Sequence[PastRun]) -> LaunchFit:
    """Predict whether the resolved ``spec`` fits into ``hardware``; ``past_runs`` correct the forecast."""
    forecaster = calibrated_forecaster(past_runs)
    predicted = forecaster(spec, hardware)
    if predicted.fits(hardware):
        return LaunchFit("", True)
    total = replace(hardware, device_free=hardware.device_total, ram_free=hardware.ram_total)
    smallest = spec if spec.memory.oom == "fail" else _with_micro(spec, 1)
    least = forecaster(smallest, hardware)
    computes_on = "mlx" if spec.launch.backend == "mlx" else hardware_used(spec, hardware).device
    if not _lowest(least, computes_on).fits(total):
        short = _shortest(least, total)
        free = next(one.free or 0 for one in headroom_by_memory(least, hardware) if one.memory == short.memory)
        return LaunchFit(
            f"does not fit: {_gib(short.needed)} of {NAMES[short.memory]} needed at micro"
            f" {smallest.batch.micro}, {_gib(short.free or 0)} there in all, {_gib(free)} of it free;"
            f" {_remedy(smallest, total, past_runs)}",
            False,
        )
    short = _shortest(predicted, hardware)
    needed = (
        f"{_gib(short.needed)} of {NAMES[short.memory]} needed at micro {spec.batch.micro},"
        f" {_gib(short.free or 0)} free"
    )
    if spec.memory.oom == "fail":
        why = "with memory.oom = fail the first out-of-memory error ends the run"
        return LaunchFit(f"{needed}; {why}; {_remedy(spec, hardware, past_runs)}", True)
    fitting = largest(micro_divisors(spec), lambda n: forecaster(_with_micro(spec, n), hardware).fits(hardware))
    if fitting is None:
        change = f"free some, or {_remedy(smallest, hardware, past_runs)}"
        return LaunchFit(f"{needed}; no micro is predicted to fit into that; {change}", True)
    then = "asks you" if spec.memory.oom == "ask" else "goes on with a smaller one"
    return LaunchFit(
        f"{needed}; micro {fitting} is predicted to fit; out of memory, the run {then}"
        f" (memory.oom = {spec.memory.oom})",
        True,
    )


def _lowest(forecast: Forecast, device: str) -> Forecast:
    """Return the lowest peak that the error of the forecast allows."""
    assumed = ASSUMED if device == "cuda" else ()
    device_parts, host_parts = (
        {part: round(size / (1 + ERROR[device])) for part, size in parts.items() if part not in assumed}
        for parts in (forecast.device, forecast.host)
    )
    return Forecast(device_parts, host_parts)


def _shortest(forecast: Forecast, hardware: Hardware) -> Headroom:
    """Return the memory that lacks the most."""
    known = [one for one in headroom_by_memory(forecast, hardware) if one.free is not None]
    return max(known, key=lambda one: one.needed - (one.free or 0))


def _remedy(spec: RunSpec, hardware: Hardware, past_runs: Sequence[PastRun]) -> str:
    options = remedy(spec, hardware, past_runs)
    return f"use {options}" if options else "use a smaller model (no change within memory.allow is enough)"


def _with_micro(spec: RunSpec, micro: int) -> RunSpec:
    return replace(spec, batch=replace(spec.batch, micro=micro))


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB" if size < 9.995 * GIB else f"{size / GIB:.1f} GiB"
