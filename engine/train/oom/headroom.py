"""Checks before an edit whether the edited run would still fit into memory."""

from __future__ import annotations

from engine.memory.forecast import forecast
from engine.memory.hardware import Hardware
from engine.memory.limits import host_capacity
from profiles.errors import UserError
from profiles.spec import RunSpec


def check_headroom(old: RunSpec, new: RunSpec, hardware: Hardware, device_capacity: int) -> None:
    """Raise ``UserError`` where ``new`` needs more than ``old`` does, and more than this process can have.

    ``device_capacity``: bytes it could hold on its device in all; on a CPU, and on unified memory, that is host memory.
    """
    before, after = forecast(old, hardware), forecast(new, hardware)
    if hardware.device == "cuda":
        _check("device memory", before.device_total, after.device_total, device_capacity)
        _check("host memory", before.host_total, after.host_total, host_capacity())
    else:
        needed = [parts.device_total + parts.host_total for parts in (before, after)]
        _check("memory", needed[0], needed[1], device_capacity)


def _check(place: str, before: int, after: int, capacity: int) -> None:
    if after > max(before, capacity):
        raise UserError(
            f"set: the forecast is {after / 1e9:.1f} GB of {place}, {capacity / 1e9:.1f} GB are available to this run;"
            " choose less, or insist with --force"
        )
