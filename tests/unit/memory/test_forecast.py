"""The forecast and its levers, on machines described by hand."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.memory.forecast import Forecast, forecast
from engine.memory.hardware import Hardware
from engine.memory.levers import levers
from profiles import registry
from profiles.spec import RunSpec

GB = 1 << 30
CPU = Hardware("a cpu", "cpu", None, None, 16 * GB, 12 * GB)
CARD = Hardware("a card", "cuda", 16 * GB, 15 * GB, 24 * GB, 20 * GB)
MAC = Hardware("a mac", "mlx", 48 * GB, 40 * GB, 48 * GB, 40 * GB)
machines = st.sampled_from([CPU, CARD, MAC])
profiles = st.sampled_from(registry.BUILTIN_ORDER)


def with_micro(spec: RunSpec, micro: int) -> RunSpec:
    return replace(spec, batch=replace(spec.batch, micro=micro, sequences=micro))


def total(forecast: Forecast) -> int:
    return forecast.device_total + forecast.host_total


@pytest.mark.parametrize("module", ["engine.memory.forecast", "engine.memory.levers", "engine.memory.hardware"])
def test_no_torch_is_needed(module: str) -> None:
    script = f"import sys, {module}; print([m for m in ('torch', 'numpy', 'mlx', 'textual') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.mark.parametrize("profile", registry.BUILTIN_ORDER)
def test_on_a_cpu_everything_is_in_host_memory(profile: str) -> None:
    spec = registry.load(profile)
    found = forecast(spec, CPU)
    assert found.device == {}
    assert found.device_total == 0
    assert {"weights", "gradients", "activations", "logits", "interpreter"} <= found.host.keys()
    assert found.host_total == sum(found.host.values()) >= spec.model.config.params * 4


@settings(deadline=None)
@given(profiles, machines, st.integers(1, 4095), st.integers(1, 1 << 16))
def test_a_larger_micro_or_context_never_needs_less(profile: str, machine: Hardware, micro: int, context: int) -> None:
    spec = registry.load(profile)
    spec = replace(spec, batch=replace(spec.batch, context=context))
    small, large = forecast(with_micro(spec, micro), machine), forecast(with_micro(spec, micro + 1), machine)
    assert total(small) < total(large)
    longer = replace(spec, batch=replace(spec.batch, micro=micro, context=context + 1))
    assert total(small) < total(forecast(longer, machine))


@settings(deadline=None)
@given(profiles, machines)
def test_every_part_is_a_count_of_bytes(profile: str, machine: Hardware) -> None:
    found = forecast(registry.load(profile), machine)
    for parts in (found.device, found.host):
        assert all(isinstance(size, int) and size >= 0 for size in parts.values())


def test_offload_moves_the_states_to_the_host() -> None:
    spec = registry.load("pretrain_5080")
    offload = forecast(spec, CARD)
    device = forecast(replace(spec, memory=replace(spec.memory, strategy="device")), CARD)
    params = spec.model.config.params
    assert offload.host["optimizer states"] == 18 * params
    assert offload.device["optimizer"] == 0
    assert device.device["optimizer"] == 8 * params
    assert "optimizer states" not in device.host
    assert offload.device_total < device.device_total


def test_fits_looks_at_each_memory() -> None:
    def fits(device: int, host: int, machine: Hardware) -> bool:
        return Forecast({"x": device * GB}, {"x": host * GB}).fits(machine)

    assert fits(15, 20, CARD)
    assert not fits(16, 1, CARD)
    assert not fits(1, 21, CARD)
    assert fits(0, 12, CPU)
    assert not fits(0, 13, CPU)
    assert fits(20, 20, MAC)
    assert not fits(21, 20, MAC)


@settings(deadline=None)
@given(
    profiles,
    machines,
    st.integers(1, 64),
    st.integers(1, 16),
    st.sampled_from(["auto", "none", "selective", "full", "offload"]),
    st.sampled_from(["fused", "plain"]),
)
def test_a_lever_saves_what_it_says_and_leaves_the_step_alone(
    profile: str, machine: Hardware, micro: int, accum: int, checkpointing: str, loss: str
) -> None:
    spec = registry.load(
        profile, [f"micro={micro}", f"accum={accum}", f"checkpointing={checkpointing}", f"loss={loss}"]
    )
    now = forecast(spec, machine)
    for lever in levers(spec, machine):
        then = forecast(lever.spec, machine)
        assert lever.device == now.device_total - then.device_total >= 0
        assert lever.host == now.host_total - then.host_total
        assert lever.host >= 0 or "offload" in lever.change
        assert lever.device > 0 or lever.host > 0
        assert lever.spec.batch.sequences == spec.batch.sequences
        assert lever.spec.batch.micro * lever.spec.accum == spec.batch.sequences
        assert lever.spec != spec


def test_the_cheapest_lever_comes_first_and_a_pulled_one_is_gone() -> None:
    spec = registry.load("cpu_demo")
    ways = [lever.change for lever in levers(spec, CPU)]
    assert ways == [
        "micro 8→4, accum 1→2",
        "micro 8→2, accum 1→4",
        "memory.loss fused",
        "memory.checkpointing selective",
        "memory.checkpointing full",
    ]
    smallest = registry.load("cpu_demo", ["micro=1", "context=64", "loss=fused", "checkpointing=full"])
    assert levers(smallest, CPU) == []


def test_a_fused_loss_that_saves_nothing_is_no_lever() -> None:
    spec = registry.load("cpu_demo", ["micro=1", "sequences=1", "context=64"])
    ways = [lever.change for lever in levers(spec, CPU)]
    assert ways == ["memory.checkpointing selective", "memory.checkpointing full"]
