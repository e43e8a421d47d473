"""Detects this machine's device and host memory, and how much of each is free."""

from __future__ import annotations

import contextlib
import platform
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from profiles.nvml import visible_devices
from profiles.spec import AUTO, RunSpec

_BF16_SINCE = (8, 0)  # compute capability: Ampere


@dataclass(frozen=True, slots=True)
class Hardware:
    """Memory in bytes. ``device`` is cuda, mlx (device memory is host memory) or cpu (no device).

    ``bf16``: a card computes in bf16 itself; older ones convert to fp32 and back.
    """

    name: str
    device: str
    device_total: int | None
    device_free: int | None
    ram_total: int
    ram_free: int
    bf16: bool = True


def hardware_used(spec: RunSpec, hardware: Hardware) -> Hardware:
    """Return ``hardware`` as the backend of ``spec`` uses it: on a Mac MLX has the GPU, and torch computes on the CPU.

    "auto" means MLX there, except for Muon, which MLX has not.
    """
    backend = spec.launch.backend
    if hardware.device != "mlx" or backend == "mlx" or (backend == AUTO and spec.optim.name != "muon"):
        return hardware
    return replace(hardware, device="cpu", device_total=None, device_free=None)


def detect_hardware(cards: int = 1) -> Hardware:
    """Return this machine's hardware, its RAM within the limits of this process's cgroup and address space.

    Of the first ``cards`` cards, one for each rank, it is the one with the least free memory that limits a run. NVML
    reports the cards, psutil the rest; torch is not imported.
    """
    return _detected(cards, freed=0)


def hardware_after(pid: int, cards: int = 1) -> Hardware:
    """Return the hardware as it is once process ``pid`` and all that it started have ended."""
    import psutil

    processes = []
    with contextlib.suppress(psutil.Error):
        parent = psutil.Process(pid)
        processes = [parent, *parent.children(recursive=True)]
    freed = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):  # it has ended, so what it held is free
            freed += process.memory_info().rss
    found = _detected(cards, freed)
    if found.device != "cuda" or found.device_free is None:
        return found
    on_card = _held_on_card({process.pid for process in processes})
    return replace(found, device_free=found.device_free + on_card)


def _detected(cards: int, freed: int) -> Hardware:
    """Return this machine's hardware, with ``freed`` more bytes of free RAM."""
    from engine.memory.limits import host_memory

    ram_total, ram_free = host_memory(ranks=cards, freed=freed)
    if found := _cards(cards):
        smallest = min(found, key=lambda card: card.free)
        bf16 = all(card.bf16 for card in found)
        return Hardware(smallest.name, "cuda", smallest.total, smallest.free, ram_total, ram_free, bf16)
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return Hardware(cpu_name(), "mlx", ram_total, ram_free, ram_total, ram_free)
    return Hardware(cpu_name(), "cpu", None, None, ram_total, ram_free)


def hardware_for(pid: int | None, cards: int = 1) -> Hardware:
    """Return the hardware as available to the process ``pid`` with ``cards`` cards: what it holds counts as free.

    For an unknown process, or where the driver does not report memory by process, free means free.
    """
    import psutil

    from engine.memory.limits import host_capacity

    hardware = detect_hardware(cards)
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
        on_device += _held_on_card({pid})
    return replace(hardware, device_free=on_device, ram_free=capacity)


def cpu_name() -> str:
    """Return the CPU's model name, or its architecture. ``platform.processor`` would start a program for it."""
    if sys.platform == "darwin":
        return _apple_chip() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else ""
    return cpuinfo.partition("model name")[2].partition(":")[2].partition("\n")[0].strip() or platform.machine()


def _apple_chip() -> str:
    """Return macOS's name of the chip, such as "Apple M2 Max", or nothing."""
    import ctypes

    name = ctypes.create_string_buffer(128)
    size = ctypes.c_size_t(len(name))
    failed = ctypes.CDLL(None).sysctlbyname(b"machdep.cpu.brand_string", name, ctypes.byref(size), None, 0)
    return "" if failed else name.value.decode(errors="replace")


@dataclass(frozen=True, slots=True)
class _Card:
    name: str
    total: int
    free: int
    bf16: bool


def _cards(count: int) -> list[_Card]:
    """Return the first ``count`` visible cards, or none where the driver does not report one's memory."""
    handles = visible_devices(count)
    if not handles:
        return []
    import pynvml as nv

    found = []
    try:
        for handle in handles:
            memory, capability = nv.nvmlDeviceGetMemoryInfo(handle), nv.nvmlDeviceGetCudaComputeCapability(handle)
            name = str(nv.nvmlDeviceGetName(handle))
            found.append(_Card(name, int(memory.total), int(memory.free), tuple(capability) >= _BF16_SINCE))
    except nv.NVMLError:
        return []
    return found


def _held_on_card(pids: set[int]) -> int:
    """Return the bytes of the card's memory that the processes hold; 0 where the driver does not report it."""
    import pynvml as nv

    try:
        processes = nv.nvmlDeviceGetComputeRunningProcesses(next(iter(visible_devices(1))))
    except nv.NVMLError:
        return 0
    return sum(process.usedGpuMemory or 0 for process in processes if process.pid in pids)
