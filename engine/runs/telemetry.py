"""Samples memory (bytes), power (watts) and temperature (°C): psutil for the host, NVML for the GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil

from engine.host.disk_space import free_space
from engine.memory.limits import host_memory
from engine.runs.apple_power import ApplePower
from profiles.nvml import visible_device

Sample = dict[str, float | int | None]


class Sensors:
    """Samples one trainer process and its machine, whose RAM is what its cgroup allows where that is less.

    A value that cannot be read is None, never a guess.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: psutil.Process | None = None
        self._device = visible_device()
        self._apple = ApplePower()
        self.device_lost = False  # the driver reports that the GPU has fallen off the bus

    @property
    def has_device(self) -> bool:
        """Whether there is an NVIDIA GPU to sample."""
        return self._device is not None

    def set_process(self, pid: int | None) -> None:
        """Sample the process ``pid`` from now on; None for no process."""
        try:
            self._process = psutil.Process(pid) if pid else None
        except psutil.Error:
            self._process = None

    def sample(self) -> Sample:
        total, free = host_memory(self._process.pid if self._process and self._process.is_running() else None)
        return {
            **self._device_sample(),
            "rss": self._rss(),
            "ram_used": total - free,
            "ram_total": total,
            "swap": psutil.swap_memory().used,
            "disk_free": free_space(self.folder),
        }

    def _rss(self) -> int | None:
        if self._process is None:
            return None
        try:
            return int(self._process.memory_info().rss) or None  # 0: it has exited and is not waited for yet
        except psutil.Error:
            return None

    def _device_sample(self) -> Sample:
        values: Sample = dict.fromkeys(("device_used", "device_total", "device_util", "power_w", "temp_c"))
        if self._device is None:
            return values | {"power_w": self._apple.watts()}
        import pynvml as nv

        reads: dict[str, Callable[[], float]] = {
            "device_used": lambda: nv.nvmlDeviceGetMemoryInfo(self._device).used,
            "device_total": lambda: nv.nvmlDeviceGetMemoryInfo(self._device).total,
            "device_util": lambda: nv.nvmlDeviceGetUtilizationRates(self._device).gpu,
            "power_w": lambda: nv.nvmlDeviceGetPowerUsage(self._device) / 1000,
            "temp_c": lambda: nv.nvmlDeviceGetTemperature(self._device, nv.NVML_TEMPERATURE_GPU),
        }
        for name, read in reads.items():
            try:
                values[name] = read()
            except nv.NVMLError as error:  # not supported by this GPU, or the GPU is gone
                self.device_lost = self.device_lost or error.value == nv.NVML_ERROR_GPU_IS_LOST
        return values


class MinMax:
    """Reduces samples to ``{name: [min, max]}``."""

    def __init__(self) -> None:
        self.ranges: dict[str, list[float]] = {}
        self.samples = 0

    def add(self, sample: Sample) -> None:
        self.samples += 1
        for name, value in sample.items():
            if value is not None:
                span = self.ranges.setdefault(name, [value, value])
                span[0], span[1] = min(span[0], value), max(span[1], value)
