"""What the machine is doing, in bytes, watts and degrees: psutil for the host, NVML for the card."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import psutil

from engine.runs.apple_power import ApplePower
from profiles.nvml import visible_device

Sample = dict[str, float | int | None]


class Telemetry:
    """Samples one trainer process and the machine it runs on. What cannot be read is None, never guessed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: psutil.Process | None = None
        self._device = visible_device()
        self._apple = ApplePower()
        self.device_lost = False  # its driver says that the card has fallen off the bus

    @property
    def has_device(self) -> bool:
        """Whether there is an NVIDIA card to sample."""
        return self._device is not None

    def watch(self, pid: int | None) -> None:
        """Take ``pid`` as the trainer from now on."""
        try:
            self._process = psutil.Process(pid) if pid else None
        except psutil.Error:
            self._process = None

    def sample(self) -> Sample:
        memory = psutil.virtual_memory()
        return {
            **self._device_sample(),
            "rss": self._rss(),
            "ram_used": memory.total - memory.available,
            "ram_total": memory.total,
            "swap": psutil.swap_memory().used,
            "disk_free": self._disk_free(),
        }

    def _rss(self) -> int | None:
        if self._process is None:
            return None
        try:
            return int(self._process.memory_info().rss)
        except psutil.Error:
            return None

    def _disk_free(self) -> int | None:
        try:
            disk = os.statvfs(self.folder)
        except OSError:
            return None
        return disk.f_bavail * disk.f_frsize

    def _device_sample(self) -> Sample:
        empty: Sample = dict.fromkeys(("device_used", "device_total", "device_util", "power_w", "temp_c"))
        if self._device is None:
            return empty | {"power_w": self._apple.watts()}
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
                empty[name] = read()
            except nv.NVMLError as error:  # this card does not tell, or is not there any more
                self.device_lost = self.device_lost or error.value == nv.NVML_ERROR_GPU_IS_LOST
        return empty


class Minute:
    """Gathers samples into ``{name: [min, max]}``."""

    def __init__(self) -> None:
        self.spans: dict[str, list[float]] = {}
        self.samples = 0

    def add(self, sample: Sample) -> None:
        self.samples += 1
        for name, value in sample.items():
            if value is not None:
                span = self.spans.setdefault(name, [value, value])
                span[0], span[1] = min(span[0], value), max(span[1], value)
