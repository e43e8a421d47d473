"""Checks the learning rate: warmup to the peak, then decay to the final rate, always within its bounds."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.train.schedule import learning_rate
from profiles.spec import OptimTable

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
