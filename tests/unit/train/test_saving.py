"""Checks checkpoints that are written in the background while a real loop trains, with delayed and failing disks."""

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
from engine.events.requests import CheckpointRequest, PauseRequest, StopRequest, TrainerRequest
from engine.events.types import Command
from engine.train.backends.build import build_backend
from engine.train.backends.ranks import SingleRank
from engine.train.loop import Trainer
from engine.train.run_state import RunState
from profiles.errors import UserError
from profiles.spec import RunSpec
from tests.unit.train.tiny_runs import MakeSpec, RecordingReporter


@pytest.fixture
def nano(nano: MakeSpec) -> MakeSpec:
    return lambda *more: nano("steps=12", "save_every=4", "val_every=6", "keep=9", *more)


class ObservedBackend:
    """A backend that calls ``before`` with the name of each call, before it is made."""

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


def command(request: TrainerRequest) -> Command:
    return Command(id=f"{request.method}-1", request=request, by="test")


def train(spec: RunSpec, out: Path, log: RecordingReporter, before: Callable[[str], None] = lambda name: None) -> str:
    backend = ObservedBackend(build_backend(spec, SingleRank()), before)
    return Trainer(RunState(spec), backend, log, out).run(None, None)


def content(out: Path) -> dict[int, bytes]:
    return {
        step: b"".join(
            (out / f"ckpt_step_{step}" / f"{part}.safetensors").read_bytes() for part in ("model", "optimizer")
        )
        for step in checkpoint.steps(out)
    }


@pytest.mark.parametrize("backend", ["torch", "mlx", "deepspeed"])
def test_a_background_save_is_byte_equal_to_one_made_by_stopping_there(
    nano: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    spec = nano(f"backend={backend}")
    real, main = os.write, threading.main_thread()
    forwards = threading.Semaphore(0)

    def before(name: str) -> None:
        if name == "optimizer_step":
            assert not [t for t in threading.enumerate() if t.name == "checkpoint"], "optimizer step during a save"
        if name == "accumulate":
            forwards.release()

    def delayed_write(fd: int, piece: Any) -> int:
        """Delay the first write of each checkpoint until the next forward: the ninth and the seventeenth."""
        thread = threading.current_thread()
        if thread is not main and thread not in writers:
            writers.append(thread)
            if len(writers) < 3:  # no forward follows the last save
                for _ in range(9 if len(writers) == 1 else 8):
                    assert forwards.acquire(timeout=20), "the loop waited for the disk before its next forward"
        return real(fd, piece)

    writers: list[threading.Thread] = []
    monkeypatch.setattr(os, "write", delayed_write)
    log = RecordingReporter()
    assert train(spec, tmp_path / "background", log, before) == "finished"
    monkeypatch.setattr(os, "write", real)
    saved = log.of("checkpoint")
    assert [(c["step"], c["ok"]) for c in saved] == [(4, True), (8, True), (12, True)]
    assert all(c["stall_s"] > 0 and c["seconds"] > 0 for c in saved)

    def stop_at(step: int) -> RecordingReporter:
        return RecordingReporter(lambda record: [command(StopRequest())] if record.get("step") == step else [])

    for step in (4, 8):
        stop = stop_at(step)
        assert train(nano(f"backend={backend}", "save_every=0"), tmp_path / f"at {step}", stop) == "stopped"
        assert content(tmp_path / f"at {step}")[step] == content(tmp_path / "background")[step], step


def test_a_failed_write_is_logged_and_the_run_continues(
    nano: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = nano("keep=1", "val_every=1")
    plain = RecordingReporter()
    train(spec, tmp_path / "plain", plain)
    real = os.fsync
    failed: list[int] = []

    def fsync(fd: int) -> None:
        if threading.current_thread() is not threading.main_thread() and not failed and last_step(log) >= 8:
            failed.append(fd)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(fd)

    def last_step(log: RecordingReporter) -> int:
        return max((record["step"] for record in log.of("step")), default=0)

    log = RecordingReporter()
    monkeypatch.setattr(os, "fsync", fsync)
    assert train(spec, tmp_path / "out", log) == "finished"
    found = [(c["step"], c["ok"]) for c in log.of("checkpoint")]
    assert found == [(4, True), (8, False), (12, True)]
    assert "No space left" in log.of("checkpoint")[1]["why"]
    assert [r["loss"] for r in log.of("step")] == [r["loss"] for r in plain.of("step")]
    assert content(tmp_path / "out")[12] == content(tmp_path / "plain")[12]
    # Retention keeps the best checkpoint that exists, not the step whose save failed.
    assert checkpoint.metadata(tmp_path / "out" / "ckpt_step_12")["best"][1] in checkpoint.steps(tmp_path / "out")


def test_a_started_save_is_finished_and_logged_when_the_run_fails(nano: MakeSpec, tmp_path: Path) -> None:
    def fail(name: str) -> None:
        if name == "accumulate" and log.of("step")[-1:] and log.of("step")[-1]["step"] == 4:
            raise RuntimeError("a card fell off the bus")

    log = RecordingReporter()
    with pytest.raises(RuntimeError, match="fell off"):
        train(nano(), tmp_path / "out", log, fail)
    assert [(c["step"], c["ok"]) for c in log.of("checkpoint")] == [(4, True)]
    assert checkpoint.newest_intact(tmp_path / "out", pytest.fail) == tmp_path / "out" / "ckpt_step_4"


def test_a_requested_checkpoint_is_acknowledged_once_it_is_on_disk(nano: MakeSpec, tmp_path: Path) -> None:
    def respond(record: dict[str, Any]) -> list[Command]:
        if record["kind"] == "checkpoint":
            assert (tmp_path / "out" / f"ckpt_step_{record['step']}" / "manifest.json").is_file()
        return [command(CheckpointRequest())] if record["kind"] == "step" and record["step"] == 2 else []

    log = RecordingReporter(respond)
    train(nano(), tmp_path / "out", log)
    first = log.of("checkpoint")[0]
    assert (first["step"], first["id"]) == (2, "checkpoint-1")


def test_a_restart_at_the_last_step_finishes_the_deletion_that_a_kill_cut_short(nano: MakeSpec, tmp_path: Path) -> None:
    out, spec = tmp_path / "models", nano("keep=1", "val_every=0")
    train(nano("val_every=0"), out, RecordingReporter())
    (out / ".ckpt_step_2.gone").mkdir()
    (out / ".ckpt_step_12.1234").mkdir()
    trainer = Trainer(RunState(spec), build_backend(spec, SingleRank()), RecordingReporter(), out)
    trainer.run(out / "ckpt_step_12", None)
    assert sorted(path.name for path in out.iterdir()) == ["ckpt_step_12", "latest"]


def test_a_stop_saves_again_what_was_moved_away(nano: MakeSpec, tmp_path: Path) -> None:
    """The step of the stop has a checkpoint, as long as its folder is there."""
    out, moved = tmp_path / "out", tmp_path / "moved"

    def respond(record: dict[str, Any]) -> list[Command]:
        if record["kind"] == "step" and record["step"] == 4:
            return [command(PauseRequest())]
        if record["kind"] == "state" and record["phase"] == "paused":
            out.rename(moved)
            return [command(StopRequest())]
        return []

    log = RecordingReporter(respond)
    assert train(nano(), out, log) == "stopped"
    assert checkpoint.steps(moved) == checkpoint.steps(out) == [4]
    text = f"{out}: the earlier checkpoints of this run were moved or deleted; this one is in a new folder"
    assert [alert["text"] for alert in log.of("alert")] == [text]


def test_stop_and_pause_wait_for_a_running_save(nano: MakeSpec, tmp_path: Path) -> None:
    """Both are requested as soon as the step whose save has started is logged: each waits for the writer first."""

    def assert_no_writer(name: str) -> None:
        if name == "offload_for_pause":
            assert not [t for t in threading.enumerate() if t.name == "checkpoint"]

    def respond(record: dict[str, Any]) -> list[Command]:
        if record["kind"] == "step" and record["step"] == 4:
            return [command(PauseRequest())]
        if record["kind"] == "state" and record["phase"] == "paused":
            return [command(StopRequest())]
        return []

    log = RecordingReporter(respond)
    assert train(nano(), tmp_path / "out", log, assert_no_writer) == "stopped"
    assert [(c["step"], c["ok"]) for c in log.of("checkpoint")] == [(4, True)]
    phases = [state["phase"] for state in log.of("state")]
    distinct = [phase for phase, _ in itertools.groupby(p for p in phases if p != "saving")]
    assert distinct == ["running", "paused", "stopping", "stopped"]


# -- a loss that is not finite


class NanBackend(ObservedBackend):
    """A backend whose loss is NaN in attempted step number ``bad``."""

    def __init__(self, backend: Any, bad: int) -> None:
        self._windows = 0
        self._bad = bad
        super().__init__(backend, lambda name: None)

    def window_totals(self) -> tuple[float, float]:
        self._windows += 1
        loss, norm = self._backend.window_totals()
        return (float("nan"), norm) if self._windows == self._bad else (loss, norm)


def train_with_nan(spec: RunSpec, out: Path, log: RecordingReporter, bad: int) -> None:
    backend = NanBackend(build_backend(spec, SingleRank()), bad)
    Trainer(RunState(spec), backend, log, out).run(None, None)


@pytest.mark.parametrize(
    ("policy", "bad", "message"),
    [
        (
            "stop",
            6,
            r"^step 6: loss nan, .*not applied; lower optim\.lr and continue with: mla-tui launch --resume .*_4$",
        ),
        ("rewind", 6, r"^step 6: loss nan, .*no rewind: a run in the foreground is not restarted; lower optim\.lr"),
        (
            "rewind",
            3,
            r"^step 3: loss nan, .*no rewind: there is no checkpoint yet; lower optim\.lr and start the run again$",
        ),
    ],
)
def test_a_nan_that_cannot_be_rewound_ends_the_run_with_the_reason(
    nano: MakeSpec, tmp_path: Path, policy: str, bad: int, message: str
) -> None:
    log = RecordingReporter()
    with pytest.raises(UserError, match=message):
        train_with_nan(nano(f"on_nan={policy}"), tmp_path / "out", log, bad)
    assert [alert["what"] for alert in log.of("alert")] == ["nan"]
    assert log.of("rewind") == []
    assert log.of("step")[-1]["step"] == bad - 1
