"""Samples of a process, and of a GPU; without one here, NVML's functions are replaced."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from engine.runs.telemetry import Sensors
from tests.unit import fake_nvml

pynvml = pytest.importorskip("pynvml")


def _raise(code: int) -> NoReturn:
    raise pynvml.NVMLError(code)


def test_an_unsupported_value_is_none_and_a_lost_gpu_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_nvml.install(monkeypatch, [fake_nvml.Card("GPU-a")])
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda handle: SimpleNamespace(used=5, total=16))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", lambda handle: SimpleNamespace(gpu=50))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetPowerUsage", lambda handle: _raise(pynvml.NVML_ERROR_NOT_SUPPORTED))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTemperature", lambda handle, sensor: 61)
    telemetry = Sensors(tmp_path)
    sample = telemetry.sample()
    assert (sample["device_used"], sample["power_w"], sample["temp_c"]) == (5, None, 61)
    assert not telemetry.device_lost

    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda handle: _raise(pynvml.NVML_ERROR_GPU_IS_LOST))
    assert telemetry.sample()["device_used"] is None
    assert telemetry.device_lost


def test_an_exited_process_has_no_memory_rather_than_0(tmp_path: Path) -> None:
    telemetry = Sensors(tmp_path)
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has exited, and is kept until it is waited for
        telemetry.set_process(process.pid)
        assert telemetry.sample()["rss"] is None
