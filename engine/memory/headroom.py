"""Whether a forecast finds room: each memory's need against what is free in it."""

from __future__ import annotations

from dataclasses import dataclass

from engine.memory.forecast import Forecast
from engine.memory.hardware import Hardware

FITS, TIGHT, OVER = "fits", "tight", "over"
TIGHT_FROM = 0.9  # of what is free: the forecast's own error and whatever else the machine does must find room too


@dataclass(frozen=True, slots=True)
class Headroom:
    """One memory: ``place`` is device, host or unified; ``free`` is None where the machine has none."""

    place: str
    parts: dict[str, int]
    free: int | None

    @property
    def needed(self) -> int:
        return sum(self.parts.values())

    @property
    def state(self) -> str:
        """FITS, TIGHT or OVER."""
        if self.free is None or self.needed <= TIGHT_FROM * self.free:
            return FITS
        return TIGHT if self.needed <= self.free else OVER


def headrooms(told: Forecast, hardware: Hardware) -> list[Headroom]:
    """The memories of ``hardware`` that ``told`` needs, the device's first. Free is what nobody uses now."""
    if hardware.device == "mlx":
        return [Headroom("unified", told.device | told.host, hardware.ram_free)]
    found = [Headroom("device", told.device, hardware.device_free)] if told.device else []
    return [*found, Headroom("host", told.host, hardware.ram_free)]


def comfortable(told: Forecast, hardware: Hardware) -> bool:
    """Whether every memory holds it, and none is tight."""
    return all(place.state == FITS for place in headrooms(told, hardware))
