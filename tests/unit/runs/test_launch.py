"""Waiting for the supervisor of a run that was just started, and what a queued run chooses."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from data.shard_file import write_shard
from engine import preflight
from engine.checkpoints import checkpoint
from engine.checkpoints.hold import released
from engine.events.types import Checkpoint
from engine.host.process import Lock, process_identity
from engine.host.struct_json import write_struct
from engine.memory.hardware import Hardware
from engine.runs import launch, supervision
from engine.runs.delete_checkpoint import check_delete
from engine.runs.device_locks import DeviceLocks, tune_name
from engine.runs.store import RunStore
from engine.runs.supervisor import Supervisor
from profiles.errors import UserError
from profiles.registry import load
from tui.cli.main import main

if TYPE_CHECKING:
    from profiles.spec import RunSpec
    from tests.unit.conftest import Make


@pytest.mark.parametrize(
    ("command", "timeout", "says"),
    [(["sleep", "60"], 0.1, "is still starting after 0.1 s"), (["false"], 60.0, "did not start")],
)
def test_a_supervisor_that_takes_long_is_not_said_to_have_failed(
    command: list[str], timeout: float, says: str, make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = subprocess.Popen(command)
    monkeypatch.setattr(supervision, "start_supervisor", lambda run: process)
    monkeypatch.setattr(supervision, "STARTUP_TIMEOUT", timeout)
    with pytest.raises(UserError, match=says):
        supervision.ensure_supervisor(make_run(phase="starting"))
    process.kill()
    process.wait()


def test_a_run_whose_supervisor_cannot_be_started_is_named_with_the_way_on(make_run: Make) -> None:
    run = make_run(phase="starting")
    run.console_path.mkdir()  # something that makes the start fail with an error of the system
    with pytest.raises(UserError, match=rf"^run {run.id}: its supervisor cannot .* with: mla-tui attach {run.id}$"):
        supervision.ensure_supervisor(run)


@pytest.mark.parametrize("behind", ["run", "tune"])
def test_a_queued_run_chooses_for_the_memory_that_is_freed_before_its_turn(
    behind: str, store: RunStore, make_run: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gib = 1 << 30
    now, later = (Hardware("a cpu", "cpu", None, None, 16 * gib, free) for free in (gib // 2, 12 * gib))
    monkeypatch.setenv("MLA_TUI_HOME", str(store.home))
    monkeypatch.setattr(preflight, "detect_hardware", lambda cards=1: now)
    monkeypatch.setattr(launch, "hardware_after", lambda pid, cards: {os.getpid(): later}[pid])
    monkeypatch.setattr(launch, "ensure_supervisor", lambda run: None)
    spec = _spec(tmp_path, "micro=auto", "stop_step=20")
    alone = launch.launch(store, spec, queue=True)
    other, trainer = make_run(), process_identity(os.getpid())
    assert trainer is not None
    write_struct(other.trainer_identity_path, trainer)
    locks = DeviceLocks(store.home, ["cpu"])
    assert locks.acquire(other.id if behind == "run" else tune_name(trainer)) is None
    lines: list[str] = []
    queued = launch.launch(store, spec, queue=True, notify=lines.append)
    assert alone.spec().batch.micro < queued.spec().batch.micro == 8
    assert not any("needed" in line for line in lines)
    assert [line for line in lines if "steps of warm-up are more than the 20 until train.stop_step" in line]
    locks.release()


def test_a_resumed_run_is_at_the_step_of_its_checkpoint_before_its_trainer_begins(
    store: RunStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLA_TUI_HOME", str(store.home))
    monkeypatch.setattr(launch, "ensure_supervisor", lambda run: None)
    saved, _ = checkpoint.save(tmp_path, 40, {"model": {}, "optimizer": {}}, {}, None)
    run = launch.launch(store, _spec(tmp_path), resume=saved)
    assert run.summary().step == 40
    assert main(["ls"]) == 0
    assert "40/300" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["resume", "init_from"])
def test_what_a_run_starts_from_is_held_while_it_is_checked_and_until_the_run_has_ended(
    option: str, store: RunStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The run that wrote it deletes none that is held; this one waits for its device, as it may for hours."""
    monkeypatch.setenv("MLA_TUI_HOME", str(store.home))
    saved, _ = checkpoint.save(tmp_path / "old", 40, {"model": {}, "optimizer": {}}, {}, None)
    begin = {
        "resume": partial(launch.launch, store, resume=saved),
        "init_from": partial(launch.launch, store, init_from=saved),
    }[option]
    store.home.mkdir()
    locks = DeviceLocks(store.home, ["cpu"])
    assert locks.acquire("another-run") is None

    checked: list[bool] = []
    monkeypatch.setattr(launch, "check_launcher", lambda spec: checked.append(_is_free(saved)))
    run = begin(_spec(tmp_path), name="new", queue=True)
    assert checked == [False] and not _is_free(saved)
    with pytest.raises(UserError, match="ckpt_step_40: run new started from it and has not ended; it is kept"):
        check_delete(store, saved.parent, 40)
    other = RunStore(tmp_path / "other")  # does not know that run
    with pytest.raises(UserError, match="ckpt_step_40: another run or command reads it; it is kept until that has"):
        check_delete(other, saved.parent, 40)
    assert main(["stop", run.id]) == 0
    while run.has_supervisor():
        time.sleep(0.01)
    assert _is_free(saved)
    locks.release()
    shutil.rmtree(saved)
    with pytest.raises(UserError, match="was removed before this run could start from it"):
        begin(run.spec())


def test_a_checkpoint_that_could_not_be_written_does_not_release_what_the_run_starts_from(
    store: RunStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(launch, "ensure_supervisor", lambda run: None)
    saved, _ = checkpoint.save(tmp_path, 40, {"model": {}, "optimizer": {}}, {}, None)
    run = launch.launch(store, _spec(tmp_path), resume=saved)
    supervisor = Supervisor(run, Lock(run.supervisor_lock))
    supervisor.on_event(Checkpoint(ok=False, step=41, why="No space left on device"))
    assert not _is_free(saved)
    supervisor.on_event(Checkpoint(ok=True, step=42))
    assert _is_free(saved)


def _is_free(path: Path) -> bool:
    with released(path) as free:
        return free


def test_of_two_launches_of_one_name_at_once_the_second_is_refused(
    store: RunStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The other one comes between the last check and the creation. Both would write one folder of checkpoints."""
    monkeypatch.setattr(launch, "ensure_supervisor", lambda run: None)
    spec, other = _spec(tmp_path), []

    def meanwhile(*args: object) -> None:
        monkeypatch.setattr(launch, "check_free", lambda *args: None)
        other.append(launch.launch(store, spec, name="one"))

    monkeypatch.setattr(launch, "check_free", meanwhile)
    with pytest.raises(UserError, match=f"--name one: run {time.strftime('%Y')}.* and writes its checkpoints there"):
        launch.launch(store, spec, name="one")
    assert store.ids() == [run.id for run in other]
    assert [path.name for path in store.runs.iterdir()] == store.ids()

    (tmp_path / "link").symlink_to(tmp_path)  # the same folder by another path
    by_link = spec.with_values("-s", train={"out": str(tmp_path / "link")})
    with pytest.raises(UserError, match=r"--name one: run .* and writes its checkpoints there"):
        launch.launch(store, by_link, name="one", share_device=True)


def _spec(folder: Path, *settings: str) -> RunSpec:
    """Return a spec whose shards and checkpoints are in ``folder``."""
    shards = folder / "shards" / "phase1"
    for split in ("train", "val"):
        (shards / split).mkdir(parents=True)
        write_shard(shards / split / "0.bin", np.zeros(20_000, "<u2"))
    return load("cpu_demo", ["backend=torch", f"data.root={shards.parent}", f"train.out={folder}", *settings])
