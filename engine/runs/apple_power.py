"""Reads the power draw of an Apple chip from its energy counters, without sudo (zeus-apple-silicon).

Apple chips have no utilization counter.
"""

from __future__ import annotations

import platform
import time
from typing import Any

WINDOW = "mla-tui"
PARTS = ("cpu_total_mj", "gpu_mj", "gpu_sram_mj", "dram_mj", "ane_mj")  # millijoules; some chips lack some of them


class ApplePower:
    """Mean power of the chip and its memory, in watts, since the previous reading."""

    def __init__(self) -> None:
        self._monitor: Any = _monitor()
        self._since = time.monotonic()
        if self._monitor is not None:
            self._monitor.begin_window(WINDOW)

    def watts(self) -> float | None:
        """Return None on other machines and where no counter has a value yet."""
        if self._monitor is None:
            return None
        now = time.monotonic()
        counted = self._monitor.end_window(WINDOW)
        self._monitor.begin_window(WINDOW)
        seconds, self._since = now - self._since, now
        known = [value for part in PARTS if (value := getattr(counted, part, None)) is not None]
        return sum(known) / 1000 / seconds if known and seconds > 0 else None


def _monitor() -> Any:
    if platform.system() != "Darwin" or platform.machine() != "arm64":
        return None
    try:
        from zeus_apple_silicon import AppleEnergyMonitor

        return AppleEnergyMonitor()
    except (ImportError, RuntimeError):  # RuntimeError: an unknown chip
        return None
