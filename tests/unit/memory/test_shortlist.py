"""The ways that are worth measuring: the spec's own first, then only what may be chosen and fits."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.memory.hardware import Hardware
from engine.memory.headroom import OVER
from engine.memory.search import combinations as module
from engine.memory.search.search import Search
from engine.memory.search.shortlist import shortlist
from profiles.registry import load
from profiles.tables import LOWER_PRECISION

GB = 1 << 30


@pytest.fixture(autouse=True)
def everything_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: object())
    monkeypatch.setattr(module, "deepspeed_problem", lambda: None)


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from([(), *((name,) for name in LOWER_PRECISION), LOWER_PRECISION]),
    st.sampled_from(["cpu", "cuda", "mlx"]),
    st.floats(0.5, 64),
    st.integers(1, 12),
    st.sets(st.sampled_from(["memory.checkpointing", "batch.micro", "memory.strategy"])),
)
def test_only_what_may_be_chosen_and_fits_is_measured(
    allow: tuple[str, ...], device: str, size: float, count: int, given_keys: set[str]
) -> None:
    machine = Hardware(
        "a machine", device, None if device == "cpu" else int(size * GB), int(size * GB), 64 * GB, 32 * GB
    )
    spec = load("pretrain_5080", [f"memory.allow={json.dumps(allow)}", "sequences=12", "compile=off"])
    search = Search(machine)
    found = shortlist(spec, search, count, given_keys)
    own, *others = found
    assert len(found) <= count and len({(one.combination, one.spec.batch.micro) for one in found}) == len(found)
    assert own == search.chosen_from(spec)[0]
    for one in others:
        assert one.state != OVER and not one.forbidden
        assert one.spec.tokens_per_step == spec.tokens_per_step
        assert all(
            name in allow for name in (one.combination.strategy, one.combination.precision) if name in LOWER_PRECISION
        )
        for key in given_keys:
            table, _, name = key.partition(".")
            assert getattr(getattr(one.spec, table), name) == getattr(getattr(own.spec, table), name)
