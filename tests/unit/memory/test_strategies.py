"""Memory strategies: which are available, in which order, and which one "auto" chooses."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.memory import strategies as module
from engine.memory.hardware import Hardware
from engine.memory.strategies import available_strategies, resolve_strategy
from profiles.registry import load
from profiles.spec import RunSpec

GB = 1 << 30


@pytest.fixture(autouse=True)
def torchao_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: object())


def card(device: float, ram: float = 64) -> Hardware:
    return Hardware("a card", "cuda", int(device * GB), int(device * GB), int(ram * GB), int(ram * GB))


CPU = Hardware("a cpu", "cpu", None, None, 16 * GB, 12 * GB)


def chosen(spec: RunSpec, hardware: Hardware) -> str:
    return resolve_strategy(spec, hardware).memory.strategy


def auto(*more: str) -> RunSpec:
    return load("pretrain_5080", ["memory.strategy=auto", *more])


def test_fastest_first_and_each_smaller_on_the_device() -> None:
    options = available_strategies(auto(), card(80))
    assert [option.name for option in options] == ["device", "states8bit", "offload"]
    totals = [option.forecast.device_total for option in options]
    assert totals == sorted(totals, reverse=True)
    assert all(option.fits for option in options)


@pytest.mark.parametrize("name", ["device", "states8bit", "offload"])
def test_auto_is_the_fastest_that_fits(name: str) -> None:
    needed = {each.name: each.forecast.device_total / GB for each in available_strategies(auto(), card(80))}
    assert chosen(auto(), card(needed[name] + 0.01)) == name


def test_where_nothing_fits_auto_is_the_smallest() -> None:
    assert chosen(auto(), card(0.5)) == "offload"
    assert chosen(auto("batch.micro=12"), card(0.5, ram=1)) == "offload"


def test_a_given_strategy_is_kept() -> None:
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
def test_only_available_strategies_are_listed(more: list[str], names: list[str]) -> None:
    assert [option.name for option in available_strategies(auto(*more), card(80))] == names
    assert chosen(auto(*more), card(80)) == (names[0] if names else "auto")


def test_without_torchao_there_are_no_8_bit_states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert [option.name for option in available_strategies(auto(), card(80))] == ["device", "offload"]


def test_a_cpu_offloads_only_to_deepspeed() -> None:
    spec = load("cpu_demo")
    assert [option.name for option in available_strategies(spec, CPU)] == ["device", "states8bit"]
    assert chosen(spec, CPU) == "device"
    assert chosen(replace(spec, launch=replace(spec.launch, backend="deepspeed")), CPU) == "offload"
