"""What memory this machine has, and how much of it is free."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass, replace
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


def hardware_for(pid: int | None) -> Hardware:
    """This machine as the living process ``pid`` sees it: what it holds itself counts as free to it.

    Where nothing is known of the process, and where the driver does not tell one process's share, free is what is free.
    """
    import psutil

    from engine.memory.limits import host_capacity

    hardware = detect_hardware()
    if pid is None:
        return hardware
    try:
        capacity = host_capacity(pid)
    except psutil.Error:
        return hardware
    if hardware.device == "mlx":
        return replace(hardware, device_free=capacity, ram_free=capacity)
    on_device = hardware.device_free
    if on_device is not None:
        on_device += _held_on_card(pid)
    return replace(hardware, device_free=on_device, ram_free=capacity)


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


def _held_on_card(pid: int) -> int:
    """Bytes of the card's memory that the process holds; 0 where the driver does not tell."""
    import pynvml as nv

    try:
        processes = nv.nvmlDeviceGetComputeRunningProcesses(visible_device())
    except nv.NVMLError:
        return 0
    return sum(process.usedGpuMemory or 0 for process in processes if process.pid == pid)
