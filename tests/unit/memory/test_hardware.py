"""Detection of device and host memory. Only functions of the driver library are replaced."""

from __future__ import annotations

import os
import platform
import subprocess
from types import SimpleNamespace

import psutil
import pytest

from engine.memory.hardware import detect_hardware, hardware_for

pynvml = pytest.importorskip("pynvml")


@pytest.fixture
def no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", absent)


def test_without_a_card_there_is_only_ram(no_card: None) -> None:
    found = detect_hardware()
    assert (found.device, found.device_total, found.device_free) == ("cpu", None, None)
    assert found.ram_total <= psutil.virtual_memory().total
    assert 0 < found.ram_free <= found.ram_total
    assert found.name


def test_on_apple_silicon_the_devices_memory_is_the_hosts(no_card: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    found = detect_hardware()
    assert found.device == "mlx"
    assert (found.device_total, found.device_free) == (found.ram_total, found.ram_free)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 1)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: f"card {index}")
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda handle: SimpleNamespace(total=16, free=9))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetName", lambda handle: "RTX")


def test_a_card_reports_its_memory(card: None) -> None:
    found = detect_hardware()
    assert (found.name, found.device, found.device_total, found.device_free) == ("RTX", "cuda", 16, 9)


def test_what_a_process_holds_counts_as_free_to_it(no_card: None) -> None:
    found, own = hardware_for(os.getpid()), psutil.Process().memory_info().rss
    assert own < found.ram_free <= psutil.virtual_memory().total
    assert hardware_for(None).ram_free <= found.ram_total


def test_what_it_holds_of_the_card_counts_where_the_driver_reports_it(
    card: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = [SimpleNamespace(pid=os.getpid(), usedGpuMemory=5), SimpleNamespace(pid=1, usedGpuMemory=2)]
    monkeypatch.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", lambda handle: processes)
    assert hardware_for(os.getpid()).device_free == 9 + 5
    processes[0].usedGpuMemory = None
    assert hardware_for(os.getpid()).device_free == 9


def test_for_a_process_that_has_ended_free_means_free(no_card: None) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert hardware_for(gone.pid).ram_free <= psutil.virtual_memory().total
