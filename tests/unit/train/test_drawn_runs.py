"""Checks that faults and commands, drawn at random, do not change what a run learns.

Hypothesis draws several injections a run, each at its own injection point: edits of all kinds, out-of-memory errors,
kills, pauses, checkpoints and shutdowns. ``reference_replay`` says what each run is compared with. The test prints its
seed; MLA_TUI_SEED draws the same runs again. Hypothesis shrinks and prints a failing example, to be added as an
``@example``.
"""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, seed, settings
from hypothesis import strategies as st

from engine.events.requests import CheckpointRequest, PauseRequest, ResumeRequest, SetRequest
from tests.unit.train.faulty_run import (
    OOM_METHODS,
    Injection,
    Kill,
    KillDuringSave,
    RunOutOfMemory,
    SendCommand,
    Shutdown,
    operations_per_method,
)
from tests.unit.train.reference_replay import run_and_compare
from tests.unit.train.tiny_runs import MakeSpec

STEPS = 10
MICROS = st.sampled_from([1, 2, 3, 4, 6, 8, 12, 16])  # a micro that does not divide the sequences is refused
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


def edits(changes: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[SendCommand]:
    return st.builds(
        lambda after, changed: SendCommand(after, SetRequest(changes=changed, unlock=True)), AFTER, changes
    )


INJECTIONS = st.one_of(
    edits(LOCKED),
    st.builds(RunOutOfMemory, AFTER, st.sampled_from(OOM_METHODS), st.floats(0.01, 0.99)),
    st.builds(Kill, AFTER, st.booleans()),
    st.builds(KillDuringSave, AFTER, st.integers(1, 60), st.integers(0, 12)),
    st.builds(Shutdown, AFTER),
    st.builds(SendCommand, AFTER, st.sampled_from((CheckpointRequest(), PauseRequest(), ResumeRequest()))),
    edits(UNLOCKED),
    edits(CADENCE),
)
# Sets another context at the step that the same poll makes the last, and that is not validated at by ``val_every``.
CONTEXT_AT_LAST_STEP: list[Injection] = [
    SendCommand(18, SetRequest(changes={"micro": 3}, unlock=True)),
    Shutdown(18),
    SendCommand(18, SetRequest(changes={"micro": 1}, unlock=True)),
    SendCommand(0, SetRequest(changes={"micro": 1}, unlock=True)),
    SendCommand(8, SetRequest(changes={"context": 16}, unlock=True)),
    SendCommand(0, SetRequest(changes={"stop_step": 7}, unlock=True)),
]
LONG = [pytest.mark.faults, pytest.mark.timeout(3600)]


@pytest.mark.parametrize(
    ("backend", "examples"),
    [
        ("torch", 10),
        pytest.param("torch", 500, marks=LONG),
        pytest.param("deepspeed", 20, marks=LONG),
    ],
)
def test_a_run_with_injected_faults_matches_its_references(
    nano: MakeSpec, tmp_path_factory: pytest.TempPathFactory, backend: str, examples: int
) -> None:
    spec = nano(f"backend={backend}", f"steps={STEPS}", "save_every=3", "val_every=4", "keep=2")
    operations = operations_per_method(spec)

    number = int(os.environ.get("MLA_TUI_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"MLA_TUI_SEED={number}")

    @seed(number)
    @settings(max_examples=examples, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
    @example(CONTEXT_AT_LAST_STEP)
    @given(st.lists(INJECTIONS, max_size=8))
    def run(injections: list[Injection]) -> None:
        run_and_compare(spec, tmp_path_factory.mktemp("drawn"), injections, operations)

    run()
