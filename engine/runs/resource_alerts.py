"""Warns before host memory, or the disk space for the next checkpoint or for the log, runs out.

Each warning is given once, and again only after the resource has recovered.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.host.disk_space import free_space

RAM_LOW, RAM_OK = 0.03, 0.06  # free fraction of host memory; near zero the kernel kills processes
DISK_LOW, DISK_OK = 1.1, 2.0  # free space in sizes of the last checkpoint: the next one is written beside it
LOG_LOW, LOG_OK = 16e6, 64e6  # free bytes where the log is; a step takes some 300


class ResourceAlerts:
    """``out`` is the folder of the run's checkpoints, ``home`` that of its log."""

    def __init__(self, out: Path, home: Path) -> None:
        self._out = out
        self._home = home
        self._low: set[str] = set()

    def check(self, sample: dict[str, Any], checkpoint_bytes: int | None) -> list[tuple[str, str]]:
        """Return (what, text) of each alert due for a telemetry ``sample`` and the size of the newest checkpoint."""
        due = []
        total = sample.get("ram_total") or 0
        free = total - (sample.get("ram_used") or 0)
        if total and self._became_low("pressure", free / total, RAM_LOW, RAM_OK):
            left = f"{free / 1e9:.2f} GB of {total / 1e9:.1f} GB of host memory are free"
            due.append(
                ("pressure", f"{left}; at zero the kernel kills processes: lower batch.micro or end other programs")
            )
        log_space = free_space(self._home)
        if log_space is not None and self._became_low("log", log_space, LOG_LOW, LOG_OK):
            text = f"{self._home}: {log_space / 1e6:.1f} MB are free; once the disk is full, the run goes on, its log"
            due.append(("disk", f"{text} stands still and requests are refused: free disk space"))
        space = free_space(self._out) if checkpoint_bytes else None
        if (
            checkpoint_bytes
            and space is not None
            and self._became_low("disk", space / checkpoint_bytes, DISK_LOW, DISK_OK)
        ):
            sizes = f"{space / 1e9:.2f} GB are free, a checkpoint takes {checkpoint_bytes / 1e9:.2f} GB"
            due.append(("disk", f"{self._out}: {sizes}; free disk space, or the next checkpoint fails"))
        return due

    def _became_low(self, what: str, left: float, low: float, ok: float) -> bool:
        if left >= ok:
            self._low.discard(what)
        if left >= low or what in self._low:
            return False
        self._low.add(what)
        return True
