"""What memory this machine has, and how much of it is free."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from pathlib import Path

from profiles.nvml import visible_device


@dataclass(frozen=True, slots=True)
class Hardware:
    """Bytes. ``device`` is cuda, mlx or cpu; on mlx the device's memory is the host's; on cpu there is no device."""

    name: str
    device: str
    device_total: int | None
    device_free: int | None
    ram_total: int
    ram_free: int


def detect_hardware() -> Hardware:
    """This machine, now. NVML is asked for the card, psutil for the rest; no torch."""
    import psutil

    memory = psutil.virtual_memory()
    card = _first_card()
    if card is not None:
        name, total, free = card
        return Hardware(name, "cuda", total, free, memory.total, memory.available)
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return Hardware("Apple Silicon", "mlx", memory.total, memory.available, memory.total, memory.available)
    return Hardware(cpu_name(), "cpu", None, None, memory.total, memory.available)


def cpu_name() -> str:
    """What the processor calls itself, or its architecture. ``platform.processor`` would start a program to ask."""
    told = Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else ""
    return told.partition("model name")[2].partition(":")[2].partition("\n")[0].strip() or platform.machine()


def _first_card() -> tuple[str, int, int] | None:
    handle = visible_device()
    if handle is None:
        return None
    import pynvml as nv

    try:
        memory = nv.nvmlDeviceGetMemoryInfo(handle)
        return str(nv.nvmlDeviceGetName(handle)), int(memory.total), int(memory.free)
    except nv.NVMLError:
        return None
