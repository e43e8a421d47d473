"""The forecast and its memory levers, on machines described by hand."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.memory.forecast import Forecast, forecast
from engine.memory.hardware import Hardware
from engine.memory.headroom import FITS, OVER, headroom_by_memory
from engine.memory.ledger import Ledger
from engine.memory.search.choose import choose
from engine.memory.search.levers import LIVE, UNLOCK, levers
from engine.memory.search.speed import step_seconds
from profiles import registry
from profiles.spec import RunSpec

GB = 1 << 30
CPU = Hardware("a cpu", "cpu", None, None, 16 * GB, 12 * GB)
CARD = Hardware("a card", "cuda", 16 * GB, 15 * GB, 24 * GB, 20 * GB)
MAC = Hardware("a mac", "mlx", 48 * GB, 40 * GB, 48 * GB, 40 * GB)
machines = st.sampled_from([CPU, CARD, MAC])
DEEPSPEED = ["launch.backend=deepspeed"]
profiles = st.sampled_from(registry.BUILTIN_ORDER)


def with_micro(spec: RunSpec, micro: int) -> RunSpec:
    return replace(spec, batch=replace(spec.batch, micro=micro, sequences=micro))


def total(forecast: Forecast) -> int:
    return forecast.device_total + forecast.host_total


@pytest.mark.parametrize("module", ["engine.memory.forecast", "engine.memory.prediction", "engine.memory.hardware"])
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
    assert {"weights", "process"} <= found.host.keys()
    assert found.host_total == sum(found.host.values()) >= spec.model.config.params * 4


@settings(deadline=None)
@given(profiles, machines, st.integers(1, 4095), st.integers(1, 1 << 16))
def test_a_larger_micro_or_context_never_needs_less(profile: str, machine: Hardware, micro: int, context: int) -> None:
    spec = registry.load(profile)
    spec = replace(spec, batch=replace(spec.batch, context=context))
    small, large = forecast(with_micro(spec, micro), machine), forecast(with_micro(spec, micro + 1), machine)
    assert total(small) <= total(large)
    longer = replace(spec, batch=replace(spec.batch, context=context + 1))
    assert total(small) <= total(forecast(with_micro(longer, micro), machine))


@settings(deadline=None)
@given(profiles, machines)
def test_every_part_is_a_count_of_bytes(profile: str, machine: Hardware) -> None:
    found = forecast(registry.load(profile), machine)
    for parts in (found.device, found.host):
        assert all(isinstance(size, int) and size >= 0 for size in parts.values())


def test_offload_moves_the_states_to_the_host() -> None:
    spec = registry.load("pretrain_5080", DEEPSPEED)
    offload = forecast(spec, CARD)
    device = forecast(replace(spec, memory=replace(spec.memory, strategy="device")), CARD)
    params = spec.model.config.params
    held = sum(size for part, size in offload.host.items() if part.startswith("offloaded"))
    # Master, gradient and two moments in fp32, bf16 sums and copies.
    assert 20 * params < held < 20.5 * params
    with pytest.MonkeyPatch.context() as patch:  # the user's own settings of the allocators: powers of two again
        patch.setenv("PYTORCH_ALLOC_CONF", "expandable_segments:True")
        rounded = forecast(spec, CARD)
    wasted = sum(size for part, size in rounded.host.items() if part.startswith("offloaded")) - held
    assert 0.3 * params < wasted < 2 * params
    assert "optimizer" not in offload.device
    assert device.device["optimizer"] == 8 * params
    assert not any(part.startswith("offloaded") for part in device.host)
    assert offload.device_total < device.device_total


def test_a_save_needs_two_chunks_of_a_card_or_what_rank_0_gathers() -> None:
    spec = registry.load("pretrain_5080", DEEPSPEED)
    device = replace(spec, memory=replace(spec.memory, strategy="device"))
    assert forecast(device, CARD).saving == 2 * (16 << 20)
    assert forecast(device, CPU).saving == forecast(spec, CARD).saving == 0
    assert forecast(spec.on_ranks(1, 2), CARD).saving == 12 * spec.model.config.params


def test_what_offload_needs_of_a_16_gb_card() -> None:
    """The device holds it easily; its states take most of 24 GB of RAM."""
    card = Hardware("a 5080", "cuda", 16 * GB, 16 * GB, 24 * GB, 24 * GB)
    spec = registry.load("pretrain_5080", DEEPSPEED)
    found = {headroom.memory: headroom for headroom in headroom_by_memory(forecast(spec, card), card)}
    assert spec.batch.micro == 12
    assert (found["device"].state, found["host"].state) == (FITS, FITS)
    assert found["device"].needed < 8 * GB
    busy = replace(card, ram_free=20 * GB)
    assert {room.memory: room.state for room in headroom_by_memory(forecast(spec, busy), busy)} == {
        "device": FITS,
        "host": OVER,
    }


def test_a_forecast_takes_less_than_5_ms_a_thousand_times_over() -> None:
    """Not a timing: a walk through 27 layers would be 27 times as many entries."""
    spec = registry.load("pretrain_5080", DEEPSPEED)
    deep = replace(spec, model=replace(spec.model, config=replace(spec.model.config, num_hidden_layers=1000)))
    allocated = []
    original = Ledger.allocate

    def counted(self: Ledger, part: str, name: str, size: float) -> None:
        allocated.append(name)
        original(self, part, name, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ledger, "allocate", counted)
        forecast(deep, CARD)
    assert len(allocated) < 1000


def test_fits_checks_each_memory() -> None:
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
def test_a_lever_saves_what_it_says_and_keeps_the_sequences_of_a_step(
    profile: str, machine: Hardware, micro: int, accum: int, checkpointing: str, loss: str
) -> None:
    spec = registry.load(
        profile, [f"micro={micro}", f"accum={accum}", f"checkpointing={checkpointing}", f"loss={loss}"]
    )
    now = forecast(spec, machine)
    for lever in levers(spec, machine):
        then = forecast(lever.spec, machine)
        assert lever.device_saved == now.device_total - then.device_total
        assert lever.host_saved == now.host_total - then.host_total
        assert lever.device_saved > 0 or lever.host_saved > 0 or lever.speed > 0
        assert lever.fits == then.fits(machine)
        assert lever.fits or not now.fits(machine)
        assert (lever.when == UNLOCK) == ("batch.context" in lever.changed)
        assert (lever.when == LIVE) == (lever.changed.keys() == {"batch.micro", "batch.accum"})
        flat = lever.spec.to_dict()
        for key, (_, new) in lever.changed.items():
            table, _, name = key.partition(".")
            assert (lever.spec.accum if name == "accum" else flat[table][name]) == new
        assert lever.spec.batch.sequences == spec.batch.sequences
        assert lever.spec.batch.micro * lever.spec.accum == spec.batch.sequences
        assert lever.spec != spec


def test_the_cheapest_lever_comes_first_and_those_that_change_the_numbers_last() -> None:
    for profile, machine in (("cpu_demo", CPU), ("pretrain_5080", CARD), ("gpu_fast", CARD), ("gpu_fast", MAC)):
        spec = choose(registry.load(profile), machine)
        found = levers(spec, machine)
        assert found
        over = not forecast(spec, machine).fits(machine)  # then what fits comes first
        ranks = [(over and not lever.fits, bool(lever.note), -round(lever.speed, 3)) for lever in found]
        assert ranks == sorted(ranks)


def test_a_lever_in_use_is_not_listed() -> None:
    found = [lever.change for lever in levers(registry.load("cpu_demo"), CPU)]
    assert {"micro 8→4, accum 1→2", "loss fused", "checkpointing full"} <= set(found)
    in_use = [
        lever.change
        for lever in levers(registry.load("cpu_demo", ["micro=1", "loss=fused", "checkpointing=full"]), CPU)
    ]
    assert not {change for change in in_use if "loss" in change or "checkpointing full" in change}


def test_where_memory_is_short_the_micro_that_fits_is_listed() -> None:
    spec = registry.load("gpu_fast", ["strategy=device", "micro=96", "sequences=96"])
    card = Hardware("a card", "cuda", 40 * GB, 39 * GB, 64 * GB, 60 * GB)
    fitting = [lever for lever in levers(spec, card) if lever.when == LIVE and lever.fits]
    assert len(fitting) == 1
    larger = next(n for n in range(fitting[0].spec.batch.micro + 1, 97) if 96 % n == 0)
    assert not forecast(replace(spec, batch=replace(spec.batch, micro=larger)), card).fits(card)


def test_recomputation_costs_time() -> None:
    spec = registry.load("gpu_fast", ["strategy=device"])
    seconds = [
        step_seconds(replace(spec, memory=replace(spec.memory, checkpointing=kind)), CARD)[0]
        for kind in ("none", "selective", "full", "offload")
    ]
    assert seconds == sorted(set(seconds))
    recompute = seconds[2] / seconds[0]
    assert 1.2 < recompute < 4 / 3  # a forward is a third of forward and backward, and the head is not recomputed


@pytest.mark.parametrize("more", [["backend=torch", "optim.name=adamw"], ["optim.name=muon"]])
def test_torch_on_a_mac_is_forecast_as_on_its_cpu(more: list[str]) -> None:
    """Only MLX uses its GPU."""
    spec, machine = registry.load("cpu_demo", more), replace(CPU, ram_total=MAC.ram_total, ram_free=MAC.ram_free)
    ours, same = choose(spec, MAC), choose(spec, machine)
    assert ours == same and ours.train.precision == "fp32"
    assert forecast(ours, MAC) == forecast(same, machine)
    assert forecast(ours, MAC) != forecast(registry.load("cpu_demo", ["backend=mlx"]), MAC)
    assert step_seconds(ours, MAC) == step_seconds(same, machine)
