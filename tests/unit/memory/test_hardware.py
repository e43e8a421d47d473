"""Detection of device and host memory. Only functions of the driver library are replaced."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import psutil
import pytest

from engine.memory import limits
from engine.memory.forecast import forecast
from engine.memory.hardware import Hardware, detect_hardware, hardware_after, hardware_for
from profiles.registry import load
from tests.unit import fake_nvml
from tests.unit.fake_nvml import Card

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


@pytest.mark.parametrize(
    ("cards", "used", "expected"),
    [
        ([Card("GPU-a")], 1, ("RTX", 16, 9, True)),
        ([Card("GPU-a"), Card("GPU-b", "small", 8, 3)], 1, ("RTX", 16, 9, True)),
        ([Card("GPU-a"), Card("GPU-b", "small", 8, 3)], 2, ("small", 8, 3, True)),  # what limits a run of two ranks
        ([Card("GPU-a"), Card("GPU-b", capability=(7, 5))], 2, ("RTX", 16, 9, False)),
    ],
)
def test_the_cards_of_a_run_report_their_memory(
    monkeypatch: pytest.MonkeyPatch, cards: list[Card], used: int, expected: tuple[str, int, int, bool]
) -> None:
    fake_nvml.install(monkeypatch, cards)
    found = detect_hardware(used)
    assert found.device == "cuda"
    assert (found.name, found.device_total, found.device_free, found.bf16) == expected


@pytest.mark.parametrize(("capability", "precision"), [((8, 0), "bf16"), ((7, 5), "fp32")])
def test_a_card_that_only_emulates_bf16_is_forecast_in_fp32(capability: tuple[int, int], precision: str) -> None:
    hardware = Hardware("RTX", "cuda", 16 << 30, 16 << 30, 32 << 30, 32 << 30, capability >= (8, 0))
    auto, named = (load("pretrain_5080", ["strategy=device", *more]) for more in ([], [f"precision={precision}"]))
    assert forecast(auto, hardware) == forecast(named, hardware)


def test_what_a_process_holds_counts_as_free_to_it(no_card: None) -> None:
    found, own = hardware_for(os.getpid()), psutil.Process().memory_info().rss
    assert own < found.ram_free <= psutil.virtual_memory().total
    assert hardware_for(None).ram_free <= found.ram_total


@pytest.mark.parametrize(("held", "free"), [(5, 14), (None, 9)])
def test_what_it_holds_of_the_card_counts_where_the_driver_reports_it(
    monkeypatch: pytest.MonkeyPatch, held: int | None, free: int
) -> None:
    fake_nvml.install(monkeypatch, [Card("GPU-a", processes={os.getpid(): held, 1: 2})])
    assert hardware_for(os.getpid()).device_free == free


def test_for_a_process_that_has_ended_free_means_free(no_card: None) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert hardware_for(gone.pid).ram_free <= psutil.virtual_memory().total


def test_what_a_process_and_its_children_hold_is_free_after_them(
    no_card: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tune measures in children of its own."""
    size = 64 << 20
    memory = psutil.virtual_memory()._replace(total=64 << 30, available=1 << 30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(limits, "_cgroup_limits", lambda pid: [])
    hold = f"held = bytearray(b'x') * {size}; print('holds', flush=True); input()"
    start = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    with subprocess.Popen([sys.executable, "-c", start], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tune:
        assert tune.stdout is not None
        tune.stdout.readline()
        assert hardware_after(tune.pid).ram_free >= detect_hardware().ram_free + size
        card = Card("GPU-a", processes={child.pid: 5 for child in psutil.Process(tune.pid).children()})
        fake_nvml.install(monkeypatch, [card])
        assert hardware_after(tune.pid).device_free == 14
        tune.communicate(b"\n")
    assert hardware_after(tune.pid).ram_free == detect_hardware().ram_free
