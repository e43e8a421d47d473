"""Whatever happens to a run, it learns what it would have learnt.

Drawn are edits of all kinds, want of memory, deaths, pauses, checkpoints and shutdowns, several in one run, each at a
moment of its own; what must come out stands in ``replay``. A seed is printed and drawn again with MLA_TUI_SEED; what
failed is printed by hypothesis, shrunk, to be put into an ``@example``.
"""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.unit.train.replay import check
from tests.unit.train.troubled import SITES, Ask, Happening, Kill, KillSaving, Shutdown, Want, sizes
from tests.unit.train.whole_runs import Nano

STEPS = 10
MICROS = st.sampled_from([1, 2, 3, 4, 6, 8, 12, 16])  # those that do not divide are refused
LOCKED = st.fixed_dictionaries({"micro": MICROS})
CADENCE = st.fixed_dictionaries(
    {}, optional={"val_every": st.integers(0, 3), "save_every": st.integers(0, 3), "stop_step": st.sampled_from([0, 7])}
).filter(bool)
UNLOCKED = st.fixed_dictionaries(
    {},
    optional={
        "context": st.sampled_from([16, 24, 32, 48]),
        "sequences": st.sampled_from([4, 8, 12, 16]),
        "micro": MICROS,
        "lr_scale": st.sampled_from([0.5, 1.0, 2.0]),
    },
).filter(bool)
AFTER = st.integers(0, 25)


def edits(changes: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[Ask]:
    return changes.map(lambda made: {"changes": made, "unlock": True}).flatmap(
        lambda params: st.builds(Ask, AFTER, st.just("set"), st.just(params))
    )


def asked(method: str) -> st.SearchStrategy[Ask]:
    return st.builds(Ask, AFTER, st.just(method), st.just({}))


HAPPENINGS = st.one_of(
    edits(LOCKED),
    st.builds(Want, AFTER, st.sampled_from(SITES), st.floats(0.01, 0.99)),
    st.builds(Kill, AFTER, st.booleans()),
    st.builds(KillSaving, AFTER, st.integers(1, 60), st.integers(0, 12)),
    st.builds(Shutdown, AFTER),
    *(asked(method) for method in ("checkpoint", "pause", "resume")),
    edits(UNLOCKED),
    edits(CADENCE),
)
LONG = [pytest.mark.faults, pytest.mark.timeout(3600)]


@pytest.mark.parametrize(
    ("backend", "examples"),
    [
        ("torch", 10),
        ("deepspeed", 2),
        pytest.param("torch", 500, marks=LONG),
        pytest.param("deepspeed", 20, marks=LONG),
    ],
)
def test_whatever_happens_it_learns_what_its_log_says(
    nano: Nano, tmp_path_factory: pytest.TempPathFactory, backend: str, examples: int
) -> None:
    spec = nano(f"backend={backend}", f"steps={STEPS}", "save_every=3", "val_every=4", "keep=2")
    size = sizes(spec)

    number = int(os.environ.get("MLA_TUI_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"MLA_TUI_SEED={number}")

    @seed(number)
    @settings(max_examples=examples, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(HAPPENINGS, max_size=8))
    def live(happenings: list[Happening]) -> None:
        check(spec, tmp_path_factory.mktemp("drawn"), happenings, size)

    live()
