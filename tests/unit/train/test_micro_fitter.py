"""Checks when a run uses a smaller micro-batch, and when a larger one again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.events.types import Edit, Oom
from engine.memory.hardware import Hardware
from engine.train.oom.micro_fitter import BY, GROW_AFTER, MicroFitter
from profiles import registry
from profiles.spec import RunSpec

GIB = 1 << 30
CARD = Hardware("card", "cuda", 80 * GIB, 80 * GIB, 128 * GIB, 128 * GIB)


@pytest.fixture(scope="module")
def spec() -> RunSpec:
    spec = registry.load("gpu_fast", ["sequences=64", "micro=64", "context=2048"])
    return replace(spec, memory=replace(spec.memory, strategy="device", checkpointing="full"))


def steps_without_oom(fitter: MicroFitter, spec: RunSpec, peak: int | None = None) -> list[bool]:
    found = []
    for _ in range(GROW_AFTER):
        fitter.record_step(spec, peak)
        found.append(fitter.may_grow(spec))
    return found


def test_micro_grows_back_after_enough_steps_without_oom_and_not_before(spec: RunSpec) -> None:
    fitter = MicroFitter(CARD)
    assert not any(steps_without_oom(fitter, spec))  # nothing was ever lowered
    lower = fitter.lower(spec, 30 * GIB)
    assert lower is not None and lower < 64
    now = spec.with_batch(micro=lower)
    assert steps_without_oom(fitter, now, 10 * GIB) == [False] * (GROW_AFTER - 1) + [True]
    assert fitter.higher(now, 80 * GIB) == 64
    assert (
        fitter.higher(now, 30 * GIB) or 0
    ) < 64  # a micro that ran out of memory is not tried again with that capacity


def test_a_users_edit_of_micro_is_the_new_target(spec: RunSpec) -> None:
    fitter = MicroFitter(CARD)
    lower = fitter.lower(spec, 30 * GIB)
    assert lower is not None
    fitter.record_edit({"micro": (lower, 2)})
    assert not any(steps_without_oom(fitter, spec.with_batch(micro=2)))


def test_a_restart_learns_from_the_records_of_earlier_attempts(spec: RunSpec) -> None:
    fitter = MicroFitter(CARD)
    fitter.learn(
        [
            Oom(micro=64, capacity=79 * GIB),
            Edit(ok=True, step=1, by=BY, changed={"micro": (64, 32)}),
            Oom(micro=32, capacity=None),
            Edit(ok=True, step=1, by=BY, changed={"micro": (32, 8)}),
        ]
    )
    assert fitter.target == 64
    now = spec.with_batch(micro=8)
    assert steps_without_oom(fitter, now)[-1]
    assert fitter.higher(now, 79 * GIB) == 32
    fitter.learn([Edit(ok=True, step=1, by="app", changed={"micro": (8, 4)})])
    assert fitter.target is None
