"""What a card's driver tells; there is none here, so NVML's own functions are played."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from engine.runs.telemetry import Telemetry

pynvml = pytest.importorskip("pynvml")


def _raise(code: int) -> NoReturn:
    raise pynvml.NVMLError(code)


def test_what_a_card_does_not_tell_is_none_and_a_lost_card_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 1)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda index: "card")
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda card: SimpleNamespace(used=5, total=16))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUtilizationRates", lambda card: SimpleNamespace(gpu=50))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetPowerUsage", lambda card: _raise(pynvml.NVML_ERROR_NOT_SUPPORTED))
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTemperature", lambda card, sensor: 61)
    telemetry = Telemetry(tmp_path)
    sample = telemetry.sample()
    assert (sample["device_used"], sample["power_w"], sample["temp_c"]) == (5, None, 61)
    assert not telemetry.device_lost

    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lambda card: _raise(pynvml.NVML_ERROR_GPU_IS_LOST))
    assert telemetry.sample()["device_used"] is None
    assert telemetry.device_lost
