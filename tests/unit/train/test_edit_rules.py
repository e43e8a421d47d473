"""Checks live edits: locked ones only change how a step is split, unlocked ones may change the step itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.events.types import Edit
from engine.train.edits import applied, changed, edited
from profiles import registry
from profiles.errors import UserError
from profiles.spec import RunSpec


@pytest.fixture(scope="module")
def spec() -> RunSpec:
    return registry.load("pretrain_5080", ["micro=12"])  # 96 sequences: 12 × 8


@pytest.mark.parametrize(
    ("changes", "micro", "accum"),
    [
        ({"micro": 4}, 4, 24),
        ({"batch.micro": 6}, 6, 16),
        ({"accum": 32}, 3, 32),
        ({"micro": 2, "accum": 48}, 2, 48),
        ({"micro": 4.0}, 4, 24),
        ({"micro": 12}, 12, 8),
    ],
)
def test_a_locked_edit_keeps_the_sequences_of_a_step(
    spec: RunSpec, changes: dict[str, Any], micro: int, accum: int
) -> None:
    new = edited(spec, changes)
    assert (new.batch.micro, new.accum, new.batch.sequences) == (micro, accum, 96)
    assert new.train == spec.train


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"micro": 5}, "batch.micro: 5 does not divide the 96 sequences of a step; use 1, 2, 3, 4, 6, 8 … 96"),
        ({"accum": 5}, "set accum: 5 does not divide the 96 sequences of a step"),
        ({"accum": 97}, "set accum: 97 does not divide the 96 sequences of a step"),
        ({"micro": 4, "accum": 8}, "set micro=4 accum=8: a step has 96 sequences, not 32"),
        ({"micro": 0}, "set: batch.micro: 0 is not in 1..4096"),
        ({"micro": "four"}, "set: batch.micro: 'four' is not a number"),
        ({"micro": None}, "set: batch.micro: None is not a number"),
        ({"micro": float("inf")}, "set: batch.micro: inf is not a whole number"),
        (
            {"context": 512},
            "set context: changes tokens per step, so later losses are not comparable; if you mean it, add --unlock",
        ),
        ({"sequences": 48}, "set sequences: changes tokens per step"),
        (
            {"train.micro": 4},
            "set train.micro: cannot be changed while a run is active; micro, accum, sequences, context",
        ),
        ({"data.sources": "{a=1}"}, r"set data.sources: the data of a run, weights too, changes at a resume: stop it"),
        ({"lr": 1}, "set lr: cannot be changed while a run is active; micro, accum"),
        ({"lr_scale": -1}, "set: optim.lr_scale: -1 is not in 0..1000"),
        ({"val_every": 0.5}, "set: train.val_every: 0.5 is not a whole number"),
        ({}, "set: nothing to change; write for example micro=4"),
        ({"micro": 4, "batch.micro": 6}, "set batch.micro: is given twice, as micro and batch.micro; give one value"),
    ],
)
def test_an_invalid_edit_is_refused_in_one_line(spec: RunSpec, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        edited(spec, changes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "micro", "accum", "sequences"),
    [
        ({"accum": 16}, 12, 16, 192),
        ({"micro": 4, "accum": 8}, 4, 8, 32),
        ({"sequences": 48}, 12, 4, 48),
        ({"sequences": 48, "accum": 8}, 6, 8, 48),
        ({"micro": 6}, 6, 16, 96),
    ],
)
def test_an_unlocked_edit_may_change_the_sequences_of_a_step(
    spec: RunSpec, changes: dict[str, Any], micro: int, accum: int, sequences: int
) -> None:
    new = edited(spec, changes, unlock=True)
    assert (new.batch.micro, new.accum, new.batch.sequences) == (micro, accum, sequences)


def test_edits_outside_the_batch_need_no_unlock(spec: RunSpec) -> None:
    new = edited(spec, {"lr_scale": 0.5, "train.val_every": 10, "save_every": 0, "stop_step": 700})
    assert (new.optim.lr_scale, new.train.val_every, new.train.save_every, new.train.stop_step) == (0.5, 10, 0, 700)
    assert new.batch == spec.batch
    assert changed(spec, new).keys() == {"lr_scale", "val_every", "save_every", "stop_step"}


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "micro": st.integers(1, 24),
            "accum": st.integers(1, 24),
            "sequences": st.integers(1, 96),
            "context": st.integers(1, 4096),
            "lr_scale": st.floats(0, 10),
            "stop_step": st.integers(0, 100),
            "steps": st.integers(1, 10**6),
            "decay": st.floats(0, 0.99),
        },
    )
)
def test_the_logged_edit_gives_the_same_spec(changes: dict[str, Any]) -> None:
    spec = registry.load("pretrain_5080", ["micro=12"])
    try:
        new = edited(spec, changes, unlock=True)
    except UserError:
        return
    assert applied(spec, Edit(ok=True, step=1, changed=changed(spec, new))) == new


def test_an_edit_replayed_under_another_micro_uses_the_largest_micro_that_divides(spec: RunSpec) -> None:
    edit = Edit(ok=True, step=1, changed={"sequences": (96, 40), "accum": (8, 4)})
    new = applied(spec.with_batch(micro=6), edit)
    assert (new.batch.sequences, new.batch.micro) == (40, 5)


def test_an_accum_that_needs_too_large_a_micro_is_refused() -> None:
    spec = registry.load("cpu_demo", ["sequences=8192"])
    with pytest.raises(UserError, match=r"batch\.micro: 8192 is not in 1\.\.4096"):
        edited(spec, {"accum": 1})


def test_only_changed_keys_are_logged(spec: RunSpec) -> None:
    assert changed(spec, edited(spec, {"micro": 4})) == {"micro": (12, 4), "accum": (8, 24)}
    assert changed(spec, edited(spec, {"micro": 12})) == {}


@settings(deadline=None)
@given(st.sampled_from(["micro", "accum"]), st.integers(-1, 200) | st.floats() | st.text())
def test_an_edit_is_applied_exactly_or_refused(key: str, value: Any) -> None:
    spec = registry.load("pretrain_5080", ["micro=12"])
    try:
        new = edited(spec, {key: value})
    except UserError:
        return
    assert new.batch.micro * new.accum == 96
    assert {"micro": new.batch.micro, "accum": new.accum}[key] == value
