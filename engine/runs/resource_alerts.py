"""What runs low, said before it runs out: host memory, and room for the next checkpoint.

Each is said once, and again only after it has been well in between.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

RAM_LOW, RAM_WELL = 0.03, 0.06  # of all; the kernel begins to kill at about nothing
ROOM_LOW, ROOM_WELL = 1.1, 2.0  # × the last checkpoint: the next one is written beside it


class ResourceAlerts:
    """``out`` is the folder of the run's checkpoints."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._low: set[str] = set()

    def check(self, sample: dict[str, Any], checkpoint_bytes: int | None) -> list[tuple[str, str]]:
        """(what, text) of each alert that is due by ``sample`` (telemetry) and the size of the newest checkpoint."""
        due = []
        total = sample.get("ram_total") or 0
        free = total - (sample.get("ram_used") or 0)
        if total and self._turned_low("pressure", free / total, RAM_LOW, RAM_WELL):
            left = f"{free / 1e9:.1f} GB of {total / 1e9:.0f} GB of host memory are left"
            due.append(("pressure", f"{left}; the kernel kills when they are gone: lower micro, or end something else"))
        room = self._room() if checkpoint_bytes else None
        if (
            checkpoint_bytes
            and room is not None
            and self._turned_low("disk", room / checkpoint_bytes, ROOM_LOW, ROOM_WELL)
        ):
            sizes = f"{room / 1e9:.2f} GB are free, a checkpoint takes {checkpoint_bytes / 1e9:.2f} GB"
            due.append(("disk", f"{self._out}: {sizes}; make room, or the next one fails"))
        return due

    def _turned_low(self, what: str, share: float, low: float, well: float) -> bool:
        if share >= well:
            self._low.discard(what)
        if share >= low or what in self._low:
            return False
        self._low.add(what)
        return True

    def _room(self) -> int | None:
        try:
            disk = os.statvfs(self._out)
        except OSError:
            return None
        return disk.f_bavail * disk.f_frsize
