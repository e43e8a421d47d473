"""Describes what was found of this machine, and the profile that is proposed for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tui.text.ellipsis import wrap
from tui.text.format import count, size_of
from tui.text.way_table import describe

if TYPE_CHECKING:
    from engine.memory.hardware import Hardware
    from engine.memory.proposed_profile import ProposedProfile


_LABEL = 8  # cells
_DEVICES = {"cuda": "GPU", "mlx": "chip", "cpu": "CPU"}


def found_lines(hardware: Hardware, width: int) -> list[str]:
    """Return the device and the RAM, with what is free of them."""
    free = f", {size_of(hardware.device_free, hardware.device_total)} free" if hardware.device == "cuda" else ""
    rows = [(_DEVICES[hardware.device], f"{hardware.name}{free}")]
    rows.append(("RAM", f"{size_of(hardware.ram_free, hardware.ram_total)} free"))
    return _labelled(rows, width)


def proposal_lines(proposed: ProposedProfile, hardware: Hardware, width: int) -> list[str]:
    """Return what a run with the proposed profile is, needs, and how fast it is predicted to be."""
    way = proposed.way
    batch, forecast = way.spec.batch, way.forecast
    needs = [f"RAM {size_of(forecast.host_total, hardware.ram_free)}"]
    if hardware.device == "mlx":
        needs = [f"memory {size_of(forecast.device_total + forecast.host_total, hardware.ram_free)}"]
    elif hardware.device == "cuda" and hardware.device_free:
        needs = [f"GPU {size_of(forecast.device_total, hardware.device_free)}", *needs]
    rows = [
        ("model", f"{way.spec.model.name}, as in {proposed.base}"),
        ("step", f"{batch.sequences} sequences of {batch.context} tokens"),
        ("run as", describe(way)),
        ("needs", ", ".join(needs)),
        ("speed", f"about {count(way.rate.tok_s)} tokens/s ({way.rate.basis})"),
    ]
    if way.combination.numerics:
        rows.append(("cost", ", ".join(way.combination.numerics)))
    return _labelled(rows, width)


def _labelled(rows: list[tuple[str, str]], width: int) -> list[str]:
    """Return label and text of each row, the text wrapped in a column of its own."""
    lines = []
    for label, text in rows:
        first, *rest = wrap(text, width - _LABEL)
        lines += [f"{label:<{_LABEL}}{first}", *(" " * _LABEL + line for line in rest)]
    return lines
