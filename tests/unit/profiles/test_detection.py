"""The default profile of a machine. Only functions of the driver library are replaced."""

from __future__ import annotations

import platform

import pytest

from profiles import registry
from tests.unit import fake_nvml
from tests.unit.fake_nvml import Card

pynvml = pytest.importorskip("pynvml")


@pytest.fixture
def no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", absent)


def cards(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    fake_nvml.install(monkeypatch, [Card(f"GPU-{index}") for index in range(count)])


@pytest.mark.parametrize(("count", "profile"), [(1, "pretrain_5080"), (0, "cpu_demo")])
def test_a_gpu_is_detected(monkeypatch: pytest.MonkeyPatch, count: int, profile: str) -> None:
    cards(monkeypatch, count)
    assert registry.detect_profile() == profile


@pytest.mark.parametrize(("visible", "profile"), [("", "cpu_demo"), ("-1", "cpu_demo"), ("1", "pretrain_5080")])
def test_only_visible_gpus_count(monkeypatch: pytest.MonkeyPatch, visible: str, profile: str) -> None:
    cards(monkeypatch, 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert registry.detect_profile() == profile


def test_without_a_driver_the_cpu_decides(no_card: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert registry.detect_profile() == "cpu_demo"
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert registry.detect_profile() == "mac_m4_pro"
