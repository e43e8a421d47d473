"""Finds the cheapest changes of a spec that make it fit, as options of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from engine.memory.calibration import PastRun
from engine.memory.forecast import forecast
from engine.memory.hardware import Hardware
from engine.memory.search.levers import levers
from profiles.spec import RunSpec


def remedy(spec: RunSpec, hardware: Hardware, past_runs: Sequence[PastRun] = ()) -> str:
    """Return ``-s key=value …``, or "" where no change is enough.

    It lies within ``memory.allow``. The context stays as it is, and the arithmetic of a step, unless nothing else is
    enough.
    """
    fitting = [lever for lever in levers(spec, hardware, past_runs) if lever.fits and lever.allowed]
    cheapest = min(
        fitting,
        key=lambda lever: (lever.tight, "batch.context" in lever.changed, bool(lever.note), len(lever.changed)),
        default=None,
    )
    return " ".join(f"-s {key}={new}" for key, (_, new) in cheapest.changed.items()) if cheapest else ""


def remedy_after_oom(spec: RunSpec, hardware: Hardware, wanted: int | None, capacity: int | None) -> str:
    """Return the same for a ``spec`` that ran out of memory although the forecast may say that it fits.

    It could have had ``capacity`` bytes and lacked the ``wanted`` ones (None: not known), so another has to need less
    than the forecast of this one by as much.
    """
    predicted = forecast(spec, hardware)
    needed = {"cuda": predicted.device_total, "cpu": predicted.host_total}.get(
        hardware.device, predicted.device_total + predicted.host_total
    )
    free = min(needed - (wanted or 1), needed if capacity is None else capacity)
    room = replace(hardware, device_free=free) if hardware.device == "cuda" else replace(hardware, ram_free=free)
    return remedy(spec, room) if free > 0 else ""
