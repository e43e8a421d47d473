"""NVIDIA's driver library without a card: replaces functions of pynvml by those of described cards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pynvml

if TYPE_CHECKING:
    import pytest


@dataclass(frozen=True)
class Card:
    """``parts``: the UUIDs of its MIG instances. ``processes``: pid → bytes held, None where it is not reported."""

    uuid: str
    name: str = "RTX"
    total: int = 16
    free: int = 9
    capability: tuple[int, int] = (12, 0)
    speed: int = 1
    milliwatts: int = 360_000
    parts: tuple[str, ...] = ()
    processes: dict[int, int | None] = field(default_factory=dict, hash=False)


def install(monkeypatch: pytest.MonkeyPatch, cards: Sequence[Card]) -> None:
    """Make the driver report ``cards``, in the order of the PCI bus."""
    for name, answer in answers(cards).items():
        monkeypatch.setattr(pynvml, name, answer)
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.setenv(name, "")  # so that it is restored, whatever the test does
        monkeypatch.delenv(name)


def answers(cards: Sequence[Card]) -> dict[str, Any]:
    """Return the driver's functions by name. Handles are cards, those of MIG instances are UUIDs."""

    def by_index(index: int) -> Card:
        if index >= len(cards):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return cards[index]

    def by_uuid(uuid: str) -> Card | str:
        found: list[Card | str] = [card for card in cards if card.uuid == uuid]
        found += [part for card in cards for part in card.parts if part == uuid]
        if not found:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return found[0]

    def mig_mode(card: Card) -> list[int]:
        if card.capability < (8, 0):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [int(bool(card.parts))] * 2

    def running(card: Card) -> list[Any]:
        return [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in card.processes.items()]

    return {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetCount": lambda: len(cards),
        "nvmlDeviceGetHandleByIndex": by_index,
        "nvmlDeviceGetHandleByUUID": by_uuid,
        "nvmlDeviceGetUUID": lambda handle: handle if isinstance(handle, str) else handle.uuid,
        "nvmlDeviceGetName": lambda card: card.name,
        "nvmlDeviceGetMemoryInfo": lambda card: SimpleNamespace(total=card.total, free=card.free),
        "nvmlDeviceGetCudaComputeCapability": lambda card: list(card.capability),
        "nvmlDeviceGetEnforcedPowerLimit": lambda card: card.milliwatts,
        "nvmlDeviceGetNumGpuCores": lambda card: card.speed,
        "nvmlDeviceGetMaxClockInfo": lambda card, kind: 1,
        "nvmlDeviceGetMigMode": mig_mode,
        "nvmlDeviceGetMigDeviceHandleByIndex": lambda card, index: card.parts[index],
        "nvmlDeviceGetComputeRunningProcesses": running,
    }
