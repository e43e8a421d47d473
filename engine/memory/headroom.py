"""Compares a forecast with the free memory: what each memory needs, what it has, whether it fits."""

from __future__ import annotations

from dataclasses import dataclass

from engine.memory.forecast import Forecast
from engine.memory.hardware import Hardware

FITS, TIGHT, OVER = "fits", "tight", "over"
TIGHT_FRACTION = 0.9  # of the free memory; the rest covers the forecast's error and other programs


@dataclass(frozen=True, slots=True)
class Headroom:
    """One memory in bytes. ``memory`` is device, host or unified; ``free`` is None where the machine has none."""

    memory: str
    parts: dict[str, int]
    free: int | None

    @property
    def needed(self) -> int:
        return sum(self.parts.values())

    @property
    def state(self) -> str:
        """FITS, TIGHT or OVER."""
        if self.free is None or self.needed <= TIGHT_FRACTION * self.free:
            return FITS
        return TIGHT if self.needed <= self.free else OVER


def headroom_by_memory(forecast: Forecast, hardware: Hardware) -> list[Headroom]:
    """Return the headroom of each memory of ``hardware`` that ``forecast`` needs, the device's first."""
    if hardware.device == "mlx":
        return [Headroom("unified", forecast.device | forecast.host, hardware.ram_free)]
    found = [Headroom("device", forecast.device, hardware.device_free)] if forecast.device else []
    return [*found, Headroom("host", forecast.host, hardware.ram_free)]


def fits_comfortably(forecast: Forecast, hardware: Hardware) -> bool:
    """Return whether the forecast fits every memory and none is tight."""
    return all(headroom.state == FITS for headroom in headroom_by_memory(forecast, hardware))
