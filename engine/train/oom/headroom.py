"""Whether an edit of a living run would still fit: asked before it is made."""

from __future__ import annotations

from engine.memory.forecast import forecast
from engine.memory.hardware import Hardware
from engine.memory.limits import host_capacity
from profiles.errors import UserError
from profiles.spec import RunSpec


def check_room(old: RunSpec, new: RunSpec, hardware: Hardware, device_capacity: int) -> None:
    """Raises ``UserError`` where ``new`` needs more than ``old``, and more than this process can have.

    ``device_capacity``: bytes it could hold on its device in all; on a CPU, and on unified memory, that is host memory.
    """
    before, after = forecast(old, hardware), forecast(new, hardware)
    if hardware.device == "cuda":
        _hold("device", before.device_total, after.device_total, device_capacity)
        _hold("host", before.host_total, after.host_total, host_capacity())
    else:
        needs = [parts.device_total + parts.host_total for parts in (before, after)]
        _hold("memory", needs[0], needs[1], device_capacity)


def _hold(place: str, before: int, after: int, capacity: int) -> None:
    if after > max(before, capacity):
        raise UserError(
            f"set: the forecast is {after / 1e9:.1f} GB of {place}, this run can have {capacity / 1e9:.1f} GB;"
            " take less, or insist with --force"
        )
