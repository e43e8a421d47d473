"""The cards that NVML shows are those that CUDA would use."""

from __future__ import annotations

import os

import pytest

from engine.execution.allocator import CONFIGURATION, VARIABLE
from engine.train.backends.cuda_environment import prepare_cuda
from profiles.nvml import visible_uuids
from tests.unit import fake_nvml
from tests.unit.fake_nvml import Card

SLOW, FAST = Card("GPU-aaaa1111", speed=1), Card("GPU-aaab2222", speed=9)
DIVIDED = Card("GPU-cccc", parts=("MIG-1", "MIG-2"))


@pytest.mark.parametrize(
    ("visible", "order", "uuids"),
    [
        (None, None, [FAST.uuid, SLOW.uuid, DIVIDED.parts[0]]),  # CUDA counts the fastest first
        (None, "PCI_BUS_ID", [SLOW.uuid, FAST.uuid, DIVIDED.parts[0]]),
        ("1", None, [SLOW.uuid]),
        ("1", "PCI_BUS_ID", [FAST.uuid]),
        ("GPU-aaab", None, [FAST.uuid]),  # CUDA takes abbreviated UUIDs
        ("GPU-aaa", None, []),  # of which there may be one only
        (f"{FAST.uuid},GPU-aaaa", None, [FAST.uuid, SLOW.uuid]),
        ("MIG-2", None, ["MIG-2"]),
        ("GPU-cccc", None, ["MIG-1"]),
        ("2,0", None, ["MIG-1", FAST.uuid]),
        ("0,7,1", None, [FAST.uuid]),  # the list ends where a device does not exist
        ("0,MIG-9", None, [FAST.uuid]),
        ("0,,1", None, [FAST.uuid]),
        ("0,-1,1", None, [FAST.uuid]),
        ("", None, []),
    ],
)
def test_visible_devices_are_those_of_cuda(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, order: str | None, uuids: list[str]
) -> None:
    fake_nvml.install(monkeypatch, [SLOW, FAST, DIVIDED])
    for name, value in (("CUDA_VISIBLE_DEVICES", visible), ("CUDA_DEVICE_ORDER", order)):
        if value is not None:
            monkeypatch.setenv(name, value)
    assert visible_uuids() == uuids
    assert visible_uuids(1) == uuids[:1]


def test_a_trainer_uses_the_cards_that_were_found(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvml.install(monkeypatch, [SLOW, FAST])
    prepare_cuda()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == f"{FAST.uuid},{SLOW.uuid}"
    assert os.environ[VARIABLE] == CONFIGURATION


@pytest.mark.parametrize("name", [VARIABLE, "PYTORCH_CUDA_ALLOC_CONF"])
def test_a_users_allocator_is_kept(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    fake_nvml.install(monkeypatch, [SLOW])
    monkeypatch.setenv(name, "max_split_size_mb:64")
    prepare_cuda()
    assert {known: os.environ.get(known) for known in (VARIABLE, "PYTORCH_CUDA_ALLOC_CONF")} == {
        VARIABLE: None,
        "PYTORCH_CUDA_ALLOC_CONF": None,
        name: "max_split_size_mb:64",
    }


def test_without_a_card_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvml.install(monkeypatch, [])
    before = dict(os.environ)
    prepare_cuda()
    assert os.environ == before
