"""The power an Apple chip draws, by the energy counters it keeps itself: readable without sudo (zeus-apple-silicon).

Utilization has no counter there.
"""

from __future__ import annotations

import platform
import time
from typing import Any

WINDOW = "mla-tui"
PARTS = ("cpu_total_mj", "gpu_mj", "gpu_sram_mj", "dram_mj", "ane_mj")  # millijoules; a chip may lack some


class ApplePower:
    """Watts since the last look, of the chip and its memory together."""

    def __init__(self) -> None:
        self._monitor: Any = _monitor()
        self._since = time.monotonic()
        if self._monitor is not None:
            self._monitor.begin_window(WINDOW)

    def watts(self) -> float | None:
        """None on other machines, and where nothing has been counted yet."""
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
    except (ImportError, RuntimeError):  # a chip it does not know
        return None
