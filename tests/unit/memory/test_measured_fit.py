"""After at most two out-of-memory errors a run uses the largest micro that fits, whatever the forecast's error."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.memory.forecast import forecast
from engine.memory.hardware import Hardware
from engine.memory.measured_fit import MARGIN, MeasuredFit
from engine.memory.search.micro import micro_divisors
from profiles import registry
from profiles.spec import RunSpec

GIB = 1 << 30
CARD = Hardware("card", "cuda", 80 * GIB, 80 * GIB, 128 * GIB, 128 * GIB)


@pytest.fixture(scope="module")
def spec() -> RunSpec:
    spec = registry.load("gpu_fast", ["sequences=64", "micro=64", "context=2048"])
    return replace(spec, memory=replace(spec.memory, strategy="device", checkpointing="full"))


def actual(spec: RunSpec, micro: int, fixed: float, each: float) -> int:
    """Return the real memory: the forecast, with an error in its fixed part and one in the part that micro adds."""
    one, this = (forecast(spec.with_batch(micro=n), CARD).device_total for n in (1, micro))
    return round(one * fixed + (this - one) * each)


@settings(deadline=None, max_examples=200)
@given(
    fixed=st.floats(0.97, 1.03),
    each=st.floats(0.97, 1.03),
    gib=st.floats(18, 80),
)
def test_it_finds_the_largest_micro_that_fits(spec: RunSpec, fixed: float, each: float, gib: float) -> None:
    capacity = round(gib * GIB)
    fit, micro, failures = MeasuredFit(CARD), 64, 0
    while (peak := actual(spec, micro, fixed, each)) > capacity:
        failures += 1
        fit.record_oom(micro, capacity)
        lower = fit.smaller_micro(spec.with_batch(micro=micro), capacity)
        if lower is None:
            return  # not even one sequence fits
        micro = lower
    fit.record_peak(micro, peak)
    while higher := fit.larger_micro(spec.with_batch(micro=micro), 64, capacity):  # after steps without errors
        micro = higher
        if actual(spec, micro, fixed, each) > capacity:
            failures += 1
            fit.record_oom(micro, capacity)
            micro = fit.smaller_micro(spec.with_batch(micro=micro), capacity) or 1
        fit.record_peak(micro, actual(spec, micro, fixed, each))
    assert failures <= 2
    assert actual(spec, micro, fixed, each) <= capacity
    certain = capacity * (MARGIN - 0.03)  # less the error in what a larger micro adds
    bigger = [n for n in micro_divisors(spec) if n > micro and actual(spec, n, fixed, each) <= certain]
    assert not bigger


def test_a_micro_that_failed_is_retried_only_in_more_memory(spec: RunSpec) -> None:
    fit = MeasuredFit(CARD)
    fit.record_oom(64, 30 * GIB)
    micro = fit.smaller_micro(spec, 30 * GIB)
    assert micro is not None and micro < 64
    now = spec.with_batch(micro=micro)
    fit.record_peak(micro, 10 * GIB)
    assert (fit.larger_micro(now, 64, 30 * GIB) or 0) < 64
    assert fit.larger_micro(now, 64, 79 * GIB) == 64
    fit.reset()
    assert fit.larger_micro(now, 64, 79 * GIB) == 64


def test_below_one_sequence_there_is_nothing_smaller(spec: RunSpec) -> None:
    assert MeasuredFit(CARD).smaller_micro(spec.with_batch(micro=1), GIB) is None


def test_where_the_forecast_fits_nothing_it_halves(spec: RunSpec) -> None:
    assert MeasuredFit(CARD).smaller_micro(spec, GIB) == 32
