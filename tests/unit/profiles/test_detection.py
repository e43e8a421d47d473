"""Which profile a machine starts with. Only the driver library's own functions are replaced."""

from __future__ import annotations

import platform

import pytest

from profiles import registry

pynvml = pytest.importorskip("pynvml")


@pytest.fixture
def no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", absent)


@pytest.mark.parametrize(("cards", "profile"), [(1, "pretrain_5080"), (0, "cpu_demo")])
def test_a_card_is_detected(monkeypatch: pytest.MonkeyPatch, cards: int, profile: str) -> None:
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: cards)
    assert registry.detect() == profile


def test_without_a_driver_the_processor_decides(no_card: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert registry.detect() == "cpu_demo"
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert registry.detect() == "mac_m4_pro"
