"""Power on Apple Silicon; a fake monitor replaces the library's."""

from __future__ import annotations

import platform
import sys
import time
import types
from pathlib import Path

import pytest

from engine.runs.apple_power import ApplePower
from engine.runs.telemetry import Sensors


class FakeMonitor:
    """Counts as zeus_apple_silicon does: a window cannot begin twice, nor end before it began."""

    def __init__(self) -> None:
        self.open: set[str] = set()

    def begin_window(self, label: str) -> None:
        assert label not in self.open
        self.open.add(label)

    def end_window(self, label: str) -> types.SimpleNamespace:
        self.open.remove(label)
        return types.SimpleNamespace(cpu_total_mj=12_000, gpu_mj=30_000, gpu_sram_mj=None, dram_mj=3_000, ane_mj=0)


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A Mac; the last entry of the returned list is its clock."""
    clock = [0.0]
    monkeypatch.setitem(sys.modules, "zeus_apple_silicon", types.SimpleNamespace(AppleEnergyMonitor=FakeMonitor))
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    monkeypatch.setattr(time, "monotonic", lambda: clock[-1])
    return clock


def test_energy_over_time_is_power(mac: list[float]) -> None:
    power = ApplePower()
    mac.append(1.5)
    assert power.watts() == 30.0
    mac.append(2.0)
    assert power.watts() == 90.0


def test_power_is_sampled(mac: list[float], tmp_path: Path) -> None:
    telemetry = Sensors(tmp_path)
    mac.append(1.0)
    assert telemetry.sample()["power_w"] == 45.0


def test_other_machines_have_no_power(tmp_path: Path) -> None:
    assert ApplePower().watts() is None


def test_a_mac_without_the_library_has_no_power(mac: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zeus_apple_silicon", None)
    assert ApplePower().watts() is None
