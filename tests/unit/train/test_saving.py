"""Checkpoints behind the training, and what the loop does beside them: a real loop, with the disk held up."""

from __future__ import annotations

import errno
import itertools
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.checkpoints import checkpoint
from engine.events.commands import Command
from engine.train.backends.build import build_backend
from engine.train.backends.ranks import SingleRank
from engine.train.loop import Trainer
from profiles.errors import UserError
from profiles.spec import RunSpec
from tests.unit.train.whole_runs import Log, Nano


@pytest.fixture
def nano(nano: Nano) -> Nano:
    return lambda *more: nano("steps=12", "save_every=4", "val_every=6", "keep=9", *more)


class Around:
    """A backend, called through: ``before`` hears of each call first."""

    def __init__(self, backend: Any, before: Callable[[str], None]) -> None:
        self._backend = backend
        self._before = before

    def __getattr__(self, name: str) -> Any:
        if name in (
            "accumulate",
            "optimizer_step",
            "evaluate",
            "offload_for_pause",
            "restore_after_pause",
            "discard_window",
        ):
            self._before(name)
        return getattr(self._backend, name)


def command(method: str, **params: Any) -> Command:
    return Command(id=f"{method}-1", method=method, params=params, by="test")


def trained(spec: RunSpec, out: Path, told: Log, before: Callable[[str], None] = lambda name: None) -> str:
    backend = Around(build_backend(spec, SingleRank()), before)
    return Trainer(spec, backend, told, out).run(None, None)


def content(out: Path) -> dict[int, bytes]:
    return {
        step: b"".join(
            (out / f"ckpt_step_{step}" / f"{part}.safetensors").read_bytes() for part in ("model", "optimizer")
        )
        for step in checkpoint.steps(out)
    }


@pytest.mark.parametrize("backend", ["torch", "mlx", "deepspeed"])
def test_written_behind_the_next_step_it_is_what_stopping_there_would_have_saved(
    nano: Nano, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    spec = nano(f"backend={backend}")
    real, main = os.write, threading.main_thread()
    ran = threading.Semaphore(0)

    def before(name: str) -> None:
        if name == "optimizer_step":
            assert not [t for t in threading.enumerate() if t.name == "checkpoint"], "stepped under the writer's hands"
        if name == "accumulate":
            ran.release()

    def hold(fd: int, piece: Any) -> int:
        """The first write of each checkpoint waits for the next forward: the ninth and the seventeenth."""
        thread = threading.current_thread()
        if thread is not main and thread not in seen:
            seen.append(thread)
            if len(seen) < 3:  # behind the last one there is no forward any more
                for _ in range(9 if len(seen) == 1 else 8):
                    assert ran.acquire(timeout=20), "the loop waited for the disk before its next forward"
        return real(fd, piece)

    seen: list[threading.Thread] = []
    monkeypatch.setattr(os, "write", hold)
    told = Log()
    assert trained(spec, tmp_path / "behind", told, before) == "finished"
    monkeypatch.setattr(os, "write", real)
    saved = told.of("checkpoint")
    assert [(c["step"], c["ok"]) for c in saved] == [(4, True), (8, True), (12, True)]
    assert all(c["stall_s"] > 0 and c["seconds"] > 0 for c in saved)

    def stop_at(step: int) -> Log:
        return Log(lambda record: [command("stop")] if record.get("step") == step else [])

    for step in (4, 8):
        stop = stop_at(step)
        assert trained(nano(f"backend={backend}", "save_every=0"), tmp_path / f"at {step}", stop) == "stopped"
        assert content(tmp_path / f"at {step}")[step] == content(tmp_path / "behind")[step], step


def test_a_write_that_fails_is_told_and_the_run_goes_on(
    nano: Nano, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = nano("keep=1", "val_every=1")
    plain = Log()
    trained(spec, tmp_path / "plain", plain)
    real = os.fsync
    failed: list[int] = []

    def fsync(fd: int) -> None:
        if threading.current_thread() is not threading.main_thread() and not failed and plain_steps(told) >= 8:
            failed.append(fd)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(fd)

    def plain_steps(told: Log) -> int:
        return max((record["step"] for record in told.of("step")), default=0)

    told = Log()
    monkeypatch.setattr(os, "fsync", fsync)
    assert trained(spec, tmp_path / "out", told) == "finished"
    found = [(c["step"], c["ok"]) for c in told.of("checkpoint")]
    assert found == [(4, True), (8, False), (12, True)]
    assert "No space left" in told.of("checkpoint")[1]["why"]
    assert [r["loss"] for r in told.of("step")] == [r["loss"] for r in plain.of("step")]
    assert content(tmp_path / "out")[12] == content(tmp_path / "plain")[12]
    # The best that retention keeps is one that exists: not the step whose save failed.
    assert checkpoint.metadata(tmp_path / "out" / "ckpt_step_12")["best"][1] in checkpoint.steps(tmp_path / "out")


def test_what_was_begun_is_written_and_told_whatever_ends_the_run(nano: Nano, tmp_path: Path) -> None:
    def dies(name: str) -> None:
        if name == "accumulate" and told.of("step")[-1:] and told.of("step")[-1]["step"] == 4:
            raise RuntimeError("a card fell off the bus")

    told = Log()
    with pytest.raises(RuntimeError, match="fell off"):
        trained(nano(), tmp_path / "out", told, dies)
    assert [(c["step"], c["ok"]) for c in told.of("checkpoint")] == [(4, True)]
    assert checkpoint.newest_intact(tmp_path / "out", pytest.fail) == tmp_path / "out" / "ckpt_step_4"


def test_an_asked_for_checkpoint_is_acknowledged_when_it_is_there(nano: Nano, tmp_path: Path) -> None:
    def ask(record: dict[str, Any]) -> list[Command]:
        if record["kind"] == "checkpoint":
            assert (tmp_path / "out" / f"ckpt_step_{record['step']}" / "manifest.json").is_file()
        return [command("checkpoint")] if record["kind"] == "step" and record["step"] == 2 else []

    told = Log(ask)
    trained(nano(), tmp_path / "out", told)
    first = told.of("checkpoint")[0]
    assert (first["step"], first["id"]) == (2, "checkpoint-1")


def test_stop_and_pause_while_a_checkpoint_is_being_written(nano: Nano, tmp_path: Path) -> None:
    """Both are asked as soon as the step whose save has begun is told: each waits for the writer first."""

    def released(name: str) -> None:
        if name == "offload_for_pause":
            assert not [t for t in threading.enumerate() if t.name == "checkpoint"]

    def ask(record: dict[str, Any]) -> list[Command]:
        if record["kind"] == "step" and record["step"] == 4:
            return [command("pause")]
        if record["kind"] == "state" and record["phase"] == "paused":
            return [command("stop")]
        return []

    told = Log(ask)
    assert trained(nano(), tmp_path / "out", told, released) == "stopped"
    assert [(c["step"], c["ok"]) for c in told.of("checkpoint")] == [(4, True)]
    phases = [state["phase"] for state in told.of("state")]
    told_once = [phase for phase, _ in itertools.groupby(p for p in phases if p != "saving")]
    assert told_once == ["running", "paused", "stopping", "stopped"]


# -- a loss that is not finite


class Poisoned(Around):
    """The loss of the ``bad``-th step that is tried is NaN."""

    def __init__(self, backend: Any, bad: int) -> None:
        self._windows = 0
        self._bad = bad
        super().__init__(backend, lambda name: None)

    def window_totals(self) -> tuple[float, float]:
        self._windows += 1
        loss, norm = self._backend.window_totals()
        return (float("nan"), norm) if self._windows == self._bad else (loss, norm)


def poisoned(spec: RunSpec, out: Path, told: Log, bad: int) -> None:
    backend = Poisoned(build_backend(spec, SingleRank()), bad)
    Trainer(spec, backend, told, out).run(None, None)


@pytest.mark.parametrize(
    ("policy", "bad", "words"),
    [
        ("stop", 6, r"^step 6: loss nan, .*not applied; lower optim\.lr and go on with --resume .*ckpt_step_4"),
        ("rewind", 6, r"^step 6: loss nan, .*no rewind: a run in the foreground is not restarted; lower optim\.lr"),
        ("rewind", 3, r"^step 3: loss nan, .*no rewind: there is no checkpoint yet; lower optim\.lr"),
    ],
)
def test_without_a_way_back_a_run_stops_and_says_why(
    nano: Nano, tmp_path: Path, policy: str, bad: int, words: str
) -> None:
    told = Log()
    with pytest.raises(UserError, match=words):
        poisoned(nano(f"on_nan={policy}"), tmp_path / "out", told, bad)
    assert [alert["what"] for alert in told.of("alert")] == ["nan"]
    assert told.of("rewind") == []
    assert told.of("step")[-1]["step"] == bad - 1
