"""Detects this machine's device and host memory, and how much of each is free."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from profiles.nvml import visible_device


@dataclass(frozen=True, slots=True)
class Hardware:
    """Memory in bytes. ``device`` is cuda, mlx (device memory is host memory) or cpu (no device)."""

    name: str
    device: str
    device_total: int | None
    device_free: int | None
    ram_total: int
    ram_free: int


def detect_hardware() -> Hardware:
    """Return this machine's hardware, its RAM within the limits of this process's cgroup.

    NVML reports the card, psutil the rest; torch is not imported.
    """
    from engine.memory.limits import host_memory

    ram_total, ram_free = host_memory()
    card = _first_card()
    if card is not None:
        name, total, free = card
        return Hardware(name, "cuda", total, free, ram_total, ram_free)
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return Hardware("Apple Silicon", "mlx", ram_total, ram_free, ram_total, ram_free)
    return Hardware(cpu_name(), "cpu", None, None, ram_total, ram_free)


def hardware_for(pid: int | None) -> Hardware:
    """Return the hardware as available to the process ``pid``: what it holds counts as free.

    For an unknown process, or where the driver does not report memory by process, free means free.
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
    """Return the CPU's model name, or its architecture. ``platform.processor`` would start a program for it."""
    cpuinfo = Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else ""
    return cpuinfo.partition("model name")[2].partition(":")[2].partition("\n")[0].strip() or platform.machine()


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
    """Return the bytes of the card's memory that the process holds; 0 where the driver does not report it."""
    import pynvml as nv

    try:
        processes = nv.nvmlDeviceGetComputeRunningProcesses(visible_device())
    except nv.NVMLError:
        return 0
    return sum(process.usedGpuMemory or 0 for process in processes if process.pid == pid)
