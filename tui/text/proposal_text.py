"""Describes what was found of this machine, and the profile that is proposed for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tui.text.format import count, size, size_of
from tui.text.way_table import describe

if TYPE_CHECKING:
    from engine.memory.hardware import Hardware
    from engine.memory.proposed_profile import ProposedProfile


def found_lines(hardware: Hardware) -> list[str]:
    """Return the device and the RAM, with what is free of them."""
    device = f", {size(hardware.device_free)} of {size(hardware.device_total)} free" if hardware.device_total else ""
    return [f"{hardware.name}{device}", f"RAM {size(hardware.ram_free)} of {size(hardware.ram_total)} free"]


def proposal_lines(proposed: ProposedProfile, hardware: Hardware) -> list[str]:
    """Return what a run with the proposed profile is, needs, and how fast it is predicted to be."""
    way = proposed.way
    batch, forecast = way.spec.batch, way.forecast
    lines = [
        f"{way.spec.model.name} as in {proposed.base}: {batch.sequences} sequences of {batch.context} tokens a step",
        describe(way),
    ]
    needs = [f"RAM {size_of(forecast.host_total, hardware.ram_free)}"]
    if hardware.device == "mlx":
        needs = [f"memory {size_of(forecast.device_total + forecast.host_total, hardware.ram_free)}"]
    elif hardware.device == "cuda" and hardware.device_free:
        needs = [f"GPU {size_of(forecast.device_total, hardware.device_free)}", *needs]
    lines.append(f"needs {', '.join(needs)}, about {count(way.rate.tok_s)} tokens/s")
    lines.append(f"speed: {way.rate.basis}")
    if way.combination.numerics:
        lines.append(f"cost in numerics: {', '.join(way.combination.numerics)}")
    return lines
