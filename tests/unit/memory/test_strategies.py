"""Where the optimizer's memory may lie: ranked, and chosen by what is free."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.memory import strategies as module
from engine.memory.hardware import Hardware
from engine.memory.strategies import strategies, with_strategy
from profiles.registry import load
from profiles.spec import RunSpec

GB = 1 << 30


@pytest.fixture(autouse=True)
def torchao_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: object())


def card(device: float, ram: float = 64) -> Hardware:
    return Hardware("a card", "cuda", int(device * GB), int(device * GB), int(ram * GB), int(ram * GB))


CPU = Hardware("a cpu", "cpu", None, None, 16 * GB, 12 * GB)


def chosen(spec: RunSpec, hardware: Hardware) -> str:
    return with_strategy(spec, hardware).memory.strategy


def auto(*more: str) -> RunSpec:
    return load("pretrain_5080", ["memory.strategy=auto", *more])


def test_fastest_first_and_each_smaller_on_the_device() -> None:
    ways = strategies(auto(), card(80))
    assert [way.name for way in ways] == ["device", "states8bit", "offload"]
    totals = [way.forecast.device_total for way in ways]
    assert totals == sorted(totals, reverse=True)
    assert all(way.fits for way in ways)


@pytest.mark.parametrize("way", ["device", "states8bit", "offload"])
def test_auto_is_the_fastest_that_fits(way: str) -> None:
    needed = {each.name: each.forecast.device_total / GB for each in strategies(auto(), card(80))}
    assert chosen(auto(), card(needed[way] + 0.01)) == way


def test_where_nothing_fits_auto_is_the_smallest() -> None:
    assert chosen(auto(), card(0.5)) == "offload"
    assert chosen(auto("batch.micro=12"), card(0.5, ram=1)) == "offload"


def test_what_was_asked_for_stays() -> None:
    assert chosen(auto("memory.strategy=device"), card(0.5)) == "device"


@pytest.mark.parametrize(
    ("more", "names"),
    [
        (["backend=torch"], ["device", "states8bit"]),
        (["backend=deepspeed"], ["offload"]),
        (["backend=mlx"], ["device"]),
        (["optim.name=muon"], ["device"]),
        (["backend=deepspeed", "optim.name=muon"], []),
        (["train.precision=bf16_sr"], ["device", "states8bit"]),
    ],
)
def test_only_what_the_run_leaves_open(more: list[str], names: list[str]) -> None:
    assert [way.name for way in strategies(auto(*more), card(80))] == names
    assert chosen(auto(*more), card(80)) == (names[0] if names else "auto")


def test_without_torchao_there_are_no_8_bit_states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert [way.name for way in strategies(auto(), card(80))] == ["device", "offload"]


def test_a_cpu_offloads_only_to_deepspeed() -> None:
    spec = load("cpu_demo")
    assert [way.name for way in strategies(spec, CPU)] == ["device", "states8bit"]
    assert chosen(spec, CPU) == "device"
    assert chosen(replace(spec, launch=replace(spec.launch, backend="deepspeed")), CPU) == "offload"
