"""Checks the learning rate: warmup to the peak, then decay to the final rate, always within its bounds."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.train.edits import edited
from engine.train.schedule import check_schedule_edit, decay_now, learning_rate
from profiles.errors import UserError
from profiles.optim import OptimTable
from profiles.registry import load
from profiles.spec import RunSpec

OPTIM = OptimTable(lr=1e-3, warmup=10, final_lr=1e-4)


def test_warmup_is_linear_and_ends_at_the_peak() -> None:
    rates = [learning_rate(OPTIM, step, 100) for step in range(1, 11)]
    assert rates == pytest.approx([n * 1e-4 for n in range(1, 11)])
    assert rates[-1] == 1e-3


def test_the_last_and_all_later_steps_have_the_final_rate() -> None:
    assert learning_rate(OPTIM, 100, 100) == pytest.approx(1e-4)
    assert learning_rate(OPTIM, 5000, 100) == pytest.approx(1e-4)


def test_the_middle_of_the_decay_has_the_middle_rate() -> None:
    assert learning_rate(OPTIM, 55, 100) == pytest.approx((1e-3 + 1e-4) / 2)


def test_without_warmup_the_decay_starts_at_the_first_step() -> None:
    first = learning_rate(replace(OPTIM, warmup=0), 1, 100)
    assert 0.99e-3 < first < 1e-3


rates = st.floats(0, 10)


@settings(deadline=None)
@given(rates, rates, st.integers(0, 10**9), st.integers(1, 10**9), st.integers(1, 10**9))
def test_the_rate_is_never_negative_or_above_the_peak(a: float, b: float, warmup: int, step: int, steps: int) -> None:
    final, lr = sorted((a, b))
    rate = learning_rate(OptimTable(lr=lr, warmup=warmup, final_lr=final), step, steps)
    assert 0 <= rate <= lr * (1 + 1e-12)
    if step > warmup:
        assert rate >= final * (1 - 1e-12)


@settings(deadline=None)
@given(st.integers(0, 50), st.integers(1, 200))
def test_after_warmup_the_rate_never_rises(warmup: int, steps: int) -> None:
    optim = OptimTable(lr=1.0, warmup=warmup, final_lr=0.1)
    decay = [learning_rate(optim, step, steps) for step in range(max(1, warmup), steps + 2)]
    assert all(later <= earlier for earlier, later in pairwise(decay))


TABLES = st.builds(
    OptimTable,
    schedule=st.sampled_from(["cosine", "linear", "wsd"]),
    lr=st.just(1.0),
    final_lr=st.floats(0, 1),
    warmup=st.integers(0, 60),
    decay=st.floats(0, 0.999) | st.integers(1, 100).map(float),
)


@settings(deadline=None)
@given(TABLES, st.integers(100, 400))
def test_every_schedule_is_continuous_and_ends_at_its_floor(optim: OptimTable, steps: int) -> None:
    rate = [learning_rate(optim, step, steps) for step in range(1, steps + 2)]
    start = optim.decay_start(steps)
    floor = 0.0 if optim.schedule == "linear" else optim.final_lr
    assert rate[steps - 1 :] == pytest.approx([floor if steps > start else 1.0, floor], abs=1e-12)
    assert all(one == 1.0 for one in rate[optim.warmup : start])
    # From step to step the rate falls by no more than the steepest part of its shape: sqrt at the start of the decay.
    steepest = {"cosine": 1.6, "linear": 1.0, "wsd": (steps - start) ** 0.5}[optim.schedule] / max(1, steps - start)
    falls = [a - b for a, b in pairwise(rate[max(optim.warmup, 1) - 1 : steps])]
    assert all(-1e-12 <= fall <= steepest * (1 - floor) + 1e-12 for fall in falls)


def wsd_run(steps: int, warmup: int, decay: float) -> RunSpec:
    changes = {"schedule": "wsd", "warmup": warmup, "decay": decay}
    return load("cpu_demo").with_values("test", train={"steps": steps}, optim=changes)


RUNS = st.builds(
    wsd_run, st.integers(100, 400), st.integers(0, 60), st.floats(0.01, 0.9) | st.integers(1, 100).map(float)
)


@settings(deadline=None)
@given(RUNS, st.integers(1, 400), st.integers(1, 900), st.none() | st.floats(0, 0.9) | st.integers(1, 100).map(float))
def test_an_accepted_edit_of_a_living_run_changes_no_rate_up_to_its_step(
    old: RunSpec, step: int, steps: int, decay: float | None
) -> None:
    step = min(step, old.train.steps)
    try:
        new = edited(old, {"steps": steps} | ({} if decay is None else {"decay": decay}))
        check_schedule_edit(old, new, step)
    except UserError:
        return
    rates = [[learning_rate(one.optim, n, one.train.steps) for n in range(1, step + 1)] for one in (old, new)]
    assert rates[0] == rates[1]


@settings(deadline=None)
@given(RUNS, st.integers(1, 400))
def test_decay_now_begins_the_decay_with_the_next_step(old: RunSpec, step: int) -> None:
    step = min(step, old.optim.decay_start(old.train.steps))
    if step < old.optim.warmup:
        with pytest.raises(UserError, match="warm-up lasts until"):
            decay_now(old, step)
        return
    new = edited(old, decay_now(old, step))
    check_schedule_edit(old, new, step)
    assert new.optim.decay_start(new.train.steps) == step
    assert learning_rate(new.optim, step + 1, new.train.steps) < old.optim.lr


@pytest.mark.parametrize(
    ("overrides", "changes", "message"),
    [
        (["optim.schedule=cosine"], {"steps": 900}, "set steps: the rate of optim.schedule = cosine would jump"),
        (["optim.schedule=wsd"], {"steps": 110}, "with 110 steps the decay of 22 would begin after step 88"),
        (["optim.schedule=wsd", "optim.decay=250"], {"steps": 900}, "set steps: the decay began after step 50, and"),
    ],
)
def test_an_edit_that_makes_the_rate_jump_is_refused(
    overrides: list[str], changes: dict[str, int], message: str
) -> None:
    old = load("cpu_demo", ["steps=300", "warmup=10", *overrides])
    with pytest.raises(UserError, match=message):
        check_schedule_edit(old, edited(old, changes), 100)


@pytest.mark.parametrize(
    ("decay", "message"), [("400", "400 steps of decay are more than train.steps = 300"), ("1.5", "1.5 is neither")]
)
def test_a_decay_that_cannot_be_is_refused(decay: str, message: str) -> None:
    with pytest.raises(UserError, match=f"optim.decay: {message}"):
        load("cpu_demo", ["optim.schedule=wsd", f"optim.decay={decay}"])
