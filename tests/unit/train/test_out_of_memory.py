"""Memory that does not suffice, at every kind of place: the run goes on smaller, and nothing of it is lost.

Errors are raised from within torch's own operations, at a chosen one of a step; the real ones of a small machine are in
tests/e2e/test_out_of_memory.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.checkpoints import checkpoint
from engine.events.commands import Command
from engine.train.backends.build import build_backend
from engine.train.backends.ranks import SingleRank
from engine.train.backends.torch_backend import TorchBackend
from engine.train.edit_history import RestartRequested
from engine.train.loop import Trainer
from engine.train.oom.micro_fitter import GROW_AFTER
from profiles.errors import UserError
from profiles.spec import RunSpec
from tests.unit.train.whole_runs import Failing, Log, Nano, operations

STEPS = 8


@pytest.fixture
def nano(nano: Nano) -> Nano:
    return lambda *more: nano(f"steps={STEPS}", "save_every=0", "val_every=4", "keep=99", *more)


class Tight:
    """A backend whose call ``method`` runs under ``Failing``, the ``which``-th time it is made."""

    def __init__(self, backend: Any, method: str, which: int, at: int) -> None:
        object.__setattr__(self, "_backend", backend)
        object.__setattr__(self, "_left", {method: which})
        object.__setattr__(self, "failing", Failing(at))

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._backend, name, value)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._backend, name)
        if name in self._left:
            self._left[name] -= 1
            if self._left[name] == 0:
                return self._failing(found)
        return found

    def _failing(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def tight(*args: Any) -> Any:
            with self.failing:
                return call(*args)

        return tight


def train(spec: RunSpec, out: Path, log: Log, *, method: str = "", which: int = 0, at: int = 0) -> Trainer:
    """A run from its start to its end, begun again as a supervisor would where it asks for that."""
    resume = None
    for _ in range(5):
        backend = Tight(build_backend(spec, SingleRank()), method, which, at)
        trainer = Trainer(spec, backend, log, out, supervised=True)
        try:
            trainer.run(resume, None)
            return trainer
        except RestartRequested:
            resume, method = checkpoint.latest(out), ""
    raise AssertionError("it never came to its end")


def weights(out: Path, step: int = STEPS) -> dict[str, torch.Tensor]:
    return checkpoint.load(out / f"ckpt_step_{step}")[0]["model"]


@pytest.mark.parametrize(
    ("backend", "share"),
    [
        *(("torch", share) for share in (0.02, 0.3, 0.5, 0.7, 0.98)),
        *(("deepspeed", share) for share in (0.02, 0.98)),
        *(pytest.param("deepspeed", share, marks=pytest.mark.faults) for share in (0.3, 0.5, 0.7)),
    ],
)
def test_in_forward_and_backward_nothing_is_lost(nano: Nano, tmp_path: Path, backend: str, share: float) -> None:
    """Micro-batch 6 of the run: the second one of step 3, so that a window half done must go."""
    spec = nano(f"backend={backend}")
    calm, log = Log(), Log()
    train(spec, tmp_path / "calm", calm)
    at = max(1, round(share * operations(spec, "accumulate")))
    run = train(spec, tmp_path / "tight", log, method="accumulate", which=6, at=at)

    (oom,) = log.of("oom")
    assert (oom["micro"], oom["wanted"], oom["action"]) == (4, 2 << 30, "micro 2")
    assert oom["where"] == ("forward" if share < 0.3 else "backward" if share > 0.6 else oom["where"])
    (edit,) = log.of("edit")
    assert (edit["by"], edit["step"], edit["changed"]["micro"]) == ("oom", 2, [4, 2])
    if backend == "deepspeed":  # the masters that were kept are those of the calm run at that step, to the last bit
        short = nano(f"backend={backend}", "steps=2", "val_every=0")
        train(short, tmp_path / "short", Log())
        kept, told = weights(tmp_path / "tight", 2), weights(tmp_path / "short", 2)
        assert all(torch.equal(kept[name], told[name]) for name in told)
    assert log.losses() == pytest.approx(calm.losses(), rel=1e-5)
    assert run.state.cursor.to_dict()["consumed"] == STEPS * 8
    ours, theirs = weights(tmp_path / "tight"), weights(tmp_path / "calm")
    assert all(torch.allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-6) for name in theirs)


def test_in_fp64_terms_the_replay_is_the_calm_run(nano: Nano, tmp_path: Path) -> None:
    """With a micro of 4 from the beginning the failed window leaves no trace at all: bit for bit."""
    spec = nano("micro=8")
    calm, log = Log(), Log()
    train(nano("micro=4"), tmp_path / "calm", calm)
    train(spec, tmp_path / "tight", log, method="accumulate", which=1, at=operations(spec, "accumulate") // 2)
    assert log.losses() == calm.losses()
    ours, theirs = weights(tmp_path / "tight"), weights(tmp_path / "calm")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("backend", ["torch", "deepspeed"])
def test_in_the_optimizer_the_run_goes_back_to_its_checkpoint(nano: Nano, tmp_path: Path, backend: str) -> None:
    """Weights may be half stepped then, so none of them is kept."""
    spec = nano(f"backend={backend}", "save_every=2")
    calm, log = Log(), Log()
    train(spec, tmp_path / "calm", calm)
    train(spec, tmp_path / "tight", log, method="optimizer_step", which=5, at=3)
    assert log.of("oom")[0]["where"] == "optimizer"
    assert [start["resumed_from"] for start in log.of("start")] == [None, 4]
    assert log.losses() == pytest.approx(calm.losses(), rel=1e-5)


def test_in_validation_the_batch_is_cut(nano: Nano, tmp_path: Path) -> None:
    spec = nano()
    calm, log = Log(), Log()
    train(spec, tmp_path / "calm", calm)
    train(spec, tmp_path / "tight", log, method="evaluate", which=3, at=20)
    (oom,) = log.of("oom")
    assert (oom["where"], oom["action"]) == ("validation", "validate 2 at once")
    assert log.losses() == calm.losses()
    told, found = ([record["loss"] for record in one.of("val")] for one in (calm, log))
    assert found == pytest.approx(told, rel=1e-6)


def test_fail_ends_the_run_with_the_reason(nano: Nano, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"in forward at micro 4, and memory\.oom = fail: CUDA out of memory"):
        train(nano("oom=fail"), tmp_path / "out", Log(), method="accumulate", which=3, at=5)


def test_one_sequence_that_does_not_fit_is_the_end(nano: Nano, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at micro 1, the smallest there is"):
        train(nano("micro=1"), tmp_path / "out", Log(), method="accumulate", which=3, at=5)


def answer(method: str, **params: Any) -> Callable[[dict[str, Any]], list[Command]]:
    """What a person does who sees the run held."""

    def ask(record: dict[str, Any]) -> list[Command]:
        held = record["kind"] == "state" and record["phase"] == "paused"
        return [Command(id="answer", method=method, params=params, by="app")] if held else []

    return ask


@pytest.mark.parametrize(
    ("method", "params", "micro"),
    [("set", {"changes": {"micro": 1}}, 1), ("resume", {}, 4)],
)
def test_asked_it_does_what_the_person_says(
    nano: Nano, tmp_path: Path, method: str, params: dict[str, Any], micro: int
) -> None:
    calm, log = Log(), Log(answer(method, **params))
    train(nano(), tmp_path / "calm", calm)
    run = train(nano("oom=ask"), tmp_path / "out", log, method="accumulate", which=6, at=9)
    assert log.of("oom")[0]["action"] == "ask"
    assert run.spec.batch.micro == micro
    assert log.losses() == pytest.approx(calm.losses(), rel=1e-5)
    assert [state["phase"] for state in log.of("state")][:3] == ["running", "paused", "running"]


def test_asked_in_vain_it_helps_itself(nano: Nano, tmp_path: Path) -> None:
    log = Log()
    run = train(nano("oom=ask", "oom_wait=1"), tmp_path / "out", log, method="accumulate", which=6, at=9)
    assert run.spec.batch.micro == 2
    assert "there was no answer in time" in [state["reason"] for state in log.of("state")]


def test_it_grows_back_after_a_quiet_stretch(nano: Nano, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The forecast says there is room for the old micro all along: another's memory was short, and is given back."""
    looks = itertools.count()
    monkeypatch.setattr(TorchBackend, "capacity", lambda self: (64 << 30) + next(looks))
    log = Log()
    spec = nano(f"steps={GROW_AFTER + 20}", "val_every=0")
    at = operations(spec, "accumulate") // 2
    run = train(spec, tmp_path / "out", log, method="accumulate", which=6, at=at)
    lowered, grown = log.of("edit")
    assert (lowered["changed"]["micro"], lowered["step"]) == ([4, 2], 2)
    assert (grown["changed"]["micro"], grown["by"]) == ([2, 4], "oom")
    assert grown["step"] == 2 + GROW_AFTER
    assert run.spec.batch.micro == 4


def test_the_kernels_kill_is_answered_with_a_smaller_micro(nano: Nano, tmp_path: Path) -> None:
    """The supervisor wrote down what the dead trainer could not."""
    log = Log()
    log.record("oom", where="host", wanted=None, parts={}, action="restart")
    run = train(nano(), tmp_path / "out", log)
    assert run.spec.batch.micro < 4
    assert log.of("edit")[0]["by"] == "oom"
    assert len(log.of("oom")) == 2


def test_memory_is_told_at_the_start_and_after_every_change(nano: Nano, tmp_path: Path) -> None:
    log = Log()
    train(nano("steps=16"), tmp_path / "out", log, method="accumulate", which=14, at=9)
    told = log.of("memory")
    assert [(r["micro"], bool(r["measured"])) for r in told] == [(4, False), (4, True), (2, False), (2, True)]
    assert told[0]["parts"]["weights"] > 0
    assert told[1]["measured"]["host"] > 100 << 20
    assert told[3]["measured"] == {"device": None, "host": None}  # the most there ever was is no measure of this one
