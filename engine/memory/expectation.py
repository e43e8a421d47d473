"""Says where a profile is made for a GPU that this machine does not have, and which profiles would run here."""

from __future__ import annotations

from collections.abc import Sequence

from engine.memory.calibration import PastRun
from engine.memory.hardware import Hardware
from engine.memory.headroom import FITS
from engine.memory.search.search import Search
from profiles import registry
from profiles.errors import SpecError
from profiles.spec import RunSpec

GIB = 1 << 30
_NEARLY = 0.9  # of the memory that is expected: a vendor's 16 GB are less once the driver has taken its part


def elsewhere(spec: RunSpec, hardware: Hardware, past_runs: Sequence[PastRun]) -> str:
    """Return one line, or "" where ``hardware`` has what ``spec`` is made for, or that is not said."""
    wanted = spec.memory.vram
    there = (hardware.device_total or 0) / GIB if hardware.device == "cuda" else 0.0
    if there >= _NEARLY * wanted:
        return ""
    found = f"this one has {there:.1f} GiB" if there else "none found"
    search, here = Search(hardware, past_runs), []
    for name in registry.names():
        try:
            other = registry.load(name)
        except SpecError:
            continue  # the user's own file; -p names what is wrong with it
        if other.memory.vram > there / _NEARLY or (other.launch.backend == "mlx") != (hardware.device == "mlx"):
            continue
        ways = search.chosen_from(other)
        if ways and ways[0].state == FITS and not ways[0].forbidden:
            here.append(name)
    run_here = f"would run here: {', '.join(here)}" if here else "no profile would run here; try a smaller model"
    return f"this profile expects a {wanted:g} GB GPU, {found}; {run_here}"
