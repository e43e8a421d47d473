"""Checks that a run continues with a smaller micro-batch after an out-of-memory error anywhere, and loses no data.

The error is raised in a chosen torch operation of a step. Real errors, under a memory limit, are in
tests/e2e/test_out_of_memory.py.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.checkpoints import checkpoint
from engine.events.requests import ResumeRequest, SetRequest, TrainerRequest
from engine.events.types import Command, Edit, Oom
from engine.train.backends.build import build_backend
from engine.train.backends.ranks import SingleRank
from engine.train.backends.torch_backend import TorchBackend
from engine.train.edit_history import RestartRequested
from engine.train.loop import Trainer
from engine.train.main import Attempt, exit_status_of
from engine.train.main import train as train_attempt
from engine.train.oom.markers import write_marker
from engine.train.oom.micro_fitter import GROW_AFTER
from engine.train.oom.recognize import OutOfMemory
from engine.train.run_state import RunState
from profiles.errors import UserError
from profiles.spec import RunSpec
from tests.unit.train.tiny_runs import MakeSpec, OomAtOperation, RecordingReporter, count_operations

STEPS = 8


@pytest.fixture
def nano(nano: MakeSpec) -> MakeSpec:
    return lambda *more: nano(f"steps={STEPS}", "save_every=0", "val_every=4", "keep=99", *more)


class OomBackend:
    """A backend whose call number ``nth`` of ``method`` runs out of memory at torch operation ``at``."""

    def __init__(self, backend: Any, method: str, nth: int, at: int) -> None:
        object.__setattr__(self, "_backend", backend)
        object.__setattr__(self, "_calls_left", {method: nth})
        object.__setattr__(self, "_oom", OomAtOperation(at))

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._backend, name, value)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._backend, name)
        if name in self._calls_left:
            self._calls_left[name] -= 1
            if self._calls_left[name] == 0:
                return self._with_oom(found)
        return found

    def _with_oom(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def failing(*args: Any) -> Any:
            with self._oom:
                return call(*args)

        return failing


def train(spec: RunSpec, out: Path, log: RecordingReporter, *, method: str = "", nth: int = 0, at: int = 0) -> Trainer:
    """Train to the end and return the last trainer; restart it when it requests that, as a supervisor would."""
    resume = None
    for _ in range(5):
        backend = OomBackend(build_backend(spec, SingleRank()), method, nth, at)
        trainer = Trainer(RunState(spec), backend, log, out, run="run")
        try:
            trainer.run(resume, None)
            return trainer
        except RestartRequested:
            resume, method = checkpoint.latest(out), ""
    raise AssertionError("the run did not end")


def weights(out: Path, step: int = STEPS) -> dict[str, torch.Tensor]:
    return checkpoint.load(out / f"ckpt_step_{step}")[0]["model"]


@pytest.mark.parametrize(
    ("backend", "fraction"),
    [
        *(("torch", fraction) for fraction in (0.02, 0.3, 0.5, 0.7, 0.98)),
        ("deepspeed", 0.98),
        *(pytest.param("deepspeed", fraction, marks=pytest.mark.faults) for fraction in (0.02, 0.3, 0.5, 0.7)),
    ],
)
def test_out_of_memory_in_forward_and_backward_loses_no_data(
    nano: MakeSpec, tmp_path: Path, backend: str, fraction: float
) -> None:
    """It is raised in micro-batch 6, the second one of step 3, so a half-done accumulation window must be discarded."""
    spec = nano(f"backend={backend}")
    reference, log = RecordingReporter(), RecordingReporter()
    train(spec, tmp_path / "reference", reference)
    at = max(1, round(fraction * count_operations(spec, "accumulate")))
    run = train(spec, tmp_path / "oom", log, method="accumulate", nth=6, at=at)

    (oom,) = log.of("oom")
    assert (oom["micro"], oom["wanted"], oom["action"]) == (4, 2 << 30, "micro 2")
    assert oom["where"] == ("forward" if fraction < 0.3 else "backward" if fraction > 0.6 else oom["where"])
    (edit,) = log.of("edit")
    assert (edit["by"], edit["step"], edit["changed"]["micro"]) == ("oom", 2, [4, 2])
    if backend == "deepspeed":  # the kept master weights are bit-equal to the reference run's at that step
        short = nano(f"backend={backend}", "steps=2", "val_every=0")
        train(short, tmp_path / "short", RecordingReporter())
        kept, expected = weights(tmp_path / "oom", 2), weights(tmp_path / "short", 2)
        assert all(torch.equal(kept[name], expected[name]) for name in expected)
    assert log.losses() == pytest.approx(reference.losses(), rel=1e-5)
    assert run.state.cursor.to_dict()["consumed"] == STEPS * 8
    found, expected = weights(tmp_path / "oom"), weights(tmp_path / "reference")
    assert all(torch.allclose(found[name], expected[name], rtol=1e-4, atol=1e-6) for name in expected)


def test_after_out_of_memory_the_run_is_bit_equal_to_one_with_the_smaller_micro(nano: MakeSpec, tmp_path: Path) -> None:
    """The discarded window leaves no trace, compared with a run that has micro 4 from the start."""
    spec = nano("micro=8")
    reference, log = RecordingReporter(), RecordingReporter()
    train(nano("micro=4"), tmp_path / "reference", reference)
    train(spec, tmp_path / "oom", log, method="accumulate", nth=1, at=count_operations(spec, "accumulate") // 2)
    assert log.losses() == reference.losses()
    found, expected = weights(tmp_path / "oom"), weights(tmp_path / "reference")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("backend", ["torch", "deepspeed"])
def test_out_of_memory_in_the_optimizer_restarts_from_the_checkpoint(
    nano: MakeSpec, tmp_path: Path, backend: str
) -> None:
    """Some weights may already be updated then, so none of them is kept."""
    spec = nano(f"backend={backend}", "save_every=2")
    reference, log = RecordingReporter(), RecordingReporter()
    train(spec, tmp_path / "reference", reference)
    train(spec, tmp_path / "oom", log, method="optimizer_step", nth=5, at=3)
    assert log.of("oom")[0]["where"] == "optimizer"
    assert [start["resumed_from"] for start in log.of("start")] == [None, 4]
    assert log.losses() == pytest.approx(reference.losses(), rel=1e-5)


def test_out_of_memory_in_validation_splits_its_batch(nano: MakeSpec, tmp_path: Path) -> None:
    spec = nano()
    reference, log = RecordingReporter(), RecordingReporter()
    train(spec, tmp_path / "reference", reference)
    train(spec, tmp_path / "oom", log, method="evaluate", nth=3, at=20)
    (oom,) = log.of("oom")
    assert (oom["where"], oom["action"]) == ("validation", "validate 2 at once")
    assert log.losses() == reference.losses()
    expected, found = ([record["loss"] for record in one.of("val")] for one in (reference, log))
    assert found == pytest.approx(expected, rel=1e-6)


def test_oom_fail_ends_the_run_with_the_reason(nano: MakeSpec, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"in forward at micro 4, and memory\.oom = fail \(2\.00 GiB requested\);"):
        train(nano("oom=fail"), tmp_path / "out", log := RecordingReporter(), method="accumulate", nth=3, at=5)
    assert log.of("oom")[0]["text"].startswith("CUDA out of memory. Tried to allocate")  # the log keeps the allocator's


def test_a_single_sequence_that_does_not_fit_ends_the_run(nano: MakeSpec, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"at micro 1, the smallest there is.* and start the run again$"):
        train(nano("micro=1"), tmp_path / "out", RecordingReporter(), method="accumulate", nth=3, at=5)


def test_out_of_memory_before_the_first_step_ends_the_run_with_our_reason(
    nano: MakeSpec, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A model of which one matrix cannot be allocated: torch's allocator for a CPU raises a plain RuntimeError."""
    spec = nano("micro=1")
    config = replace(spec.model.config, hidden_size=1 << 40)
    huge = replace(spec, model=replace(spec.model, config=config))

    def body() -> None:
        attempt = Attempt(huge, tmp_path, None, None, "")
        train_attempt(attempt, RecordingReporter(), SingleRank(), lambda run: None, lambda data, resume: None)

    code, why = exit_status_of(body)
    assert code == 1 and "\n" not in why
    assert re.fullmatch(r"out of memory outside a step \(\d+\.\d\d GiB requested\); mla-tui plan shows .*", why), why
    assert "DefaultCPUAllocator" in capfd.readouterr().err


def answer(request: TrainerRequest) -> Callable[[dict[str, Any]], list[Command]]:
    """Return a function that sends a user's command while the run is paused."""

    def respond(record: dict[str, Any]) -> list[Command]:
        paused = record["kind"] == "state" and record["phase"] == "paused"
        return [Command(id="answer", request=request, by="app")] if paused else []

    return respond


@pytest.mark.parametrize(
    ("sent", "micro"), [(SetRequest(changes={"micro": 1}), 1), (ResumeRequest(), 4)], ids=["set", "resume"]
)
def test_oom_ask_does_what_the_user_answers(nano: MakeSpec, tmp_path: Path, sent: TrainerRequest, micro: int) -> None:
    reference, log = RecordingReporter(), RecordingReporter(answer(sent))
    train(nano(), tmp_path / "reference", reference)
    run = train(nano("oom=ask"), tmp_path / "out", log, method="accumulate", nth=6, at=9)
    assert log.of("oom")[0]["action"] == "ask"
    assert run.spec.batch.micro == micro
    assert log.losses() == pytest.approx(reference.losses(), rel=1e-5)
    assert [state["phase"] for state in log.of("state")][:3] == ["running", "paused", "running"]


def test_oom_ask_lowers_micro_without_an_answer_in_time(nano: MakeSpec, tmp_path: Path) -> None:
    log = RecordingReporter()
    run = train(nano("oom=ask", "oom_wait=1"), tmp_path / "out", log, method="accumulate", nth=6, at=9)
    assert run.spec.batch.micro == 2
    assert "there was no answer in time" in [state["reason"] for state in log.of("state")]


def test_micro_grows_back_after_enough_steps_without_oom(
    nano: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The forecast always fits the old micro: another process held the memory, and has freed it."""
    calls = itertools.count()
    monkeypatch.setattr(TorchBackend, "capacity", lambda self: (64 << 30) + next(calls))
    log = RecordingReporter()
    spec = nano(f"steps={GROW_AFTER + 20}", "val_every=0")
    at = count_operations(spec, "accumulate") // 2
    run = train(spec, tmp_path / "out", log, method="accumulate", nth=6, at=at)
    lowered, grown = log.of("edit")
    assert (lowered["changed"]["micro"], lowered["step"]) == ([4, 2], 2)
    assert (grown["changed"]["micro"], grown["by"]) == ([2, 4], "oom")
    assert grown["step"] == 2 + GROW_AFTER
    assert run.spec.batch.micro == 4


def test_after_a_kill_by_the_oom_killer_the_run_restarts_with_a_smaller_micro(nano: MakeSpec, tmp_path: Path) -> None:
    """The supervisor has logged the out-of-memory kill, because the killed trainer could not."""
    log = RecordingReporter()
    log.record(Oom(where="host", action="restart"))
    run = train(nano(), tmp_path / "out", log)
    assert run.spec.batch.micro < 4
    assert log.of("edit")[0]["by"] == "oom"
    assert len(log.of("oom")) == 2


@pytest.mark.parametrize("rank", [None, 1], ids=["the kernel's kill", "another rank's error"])
def test_an_edit_behind_the_checkpoint_that_did_not_fit_is_not_made_again(
    nano: MakeSpec, tmp_path: Path, rank: int | None
) -> None:
    """The restart begins with the micro-batch of before; what is lowered is the one that ran out of memory."""
    log = RecordingReporter()
    log.record(Edit(ok=True, step=3, changed={"micro": (2, 4)}, by="command line"))
    if rank is None:
        log.record(Oom(where="host", action="restart", micro=4))
    else:
        (tmp_path / "out").mkdir()
        write_marker(tmp_path / "out", OutOfMemory("host", None, "no memory"), rank, 4)
    run = train(nano("micro=2", "steps=5"), tmp_path / "out", log)
    asked = log.of("oom")[-1]
    assert (asked["micro"], asked["action"]) == (4, "micro 2")
    assert [edit["changed"]["micro"] for edit in log.of("edit")] == [[2, 4], [4, 2]]
    assert run.spec.batch.micro == 2


def test_memory_is_logged_at_the_start_and_after_every_change(nano: MakeSpec, tmp_path: Path) -> None:
    log = RecordingReporter()
    train(nano("steps=16"), tmp_path / "out", log, method="accumulate", nth=14, at=9)
    records = log.of("memory")
    assert [(r["micro"], r["measured"] is not None) for r in records] == [(4, False), (4, True), (2, False)]
    assert records[0]["parts"]["weights"] > 0
    assert records[1]["measured"]["host"] > 100 << 20
