"""A run is removed once it has ended and has no process, and not before."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from engine.checkpoints import checkpoint
from engine.checkpoints.hold import held
from engine.checkpoints.ownership import checkpoint_dir
from engine.events.labels import change_tags
from engine.host.process import Lock, process_identity
from engine.host.struct_json import write_struct
from engine.runs.remove_run import plan_removal, remove_run
from engine.runs.store import RunStore
from engine.runs.supervision import ensure_supervisor
from profiles.errors import UserError
from tests.unit.conftest import DEAD, Make
from tests.unit.disk_faults import fault_at
from tui.cli.main import main


@pytest.mark.parametrize("role", ["supervisor", "trainer"])
def test_an_active_run_is_not_removed(make_run: Make, role: str) -> None:
    run = make_run(**{role: process_identity(os.getpid())})
    with pytest.raises(UserError, match=rf"run {run.id}: is running; stop it first: mla-tui stop {run.id}"):
        run.remove()
    assert run.state_path.exists()


@pytest.mark.parametrize("lock", ["supervisor_lock", "trainer_lock"])
def test_a_run_with_a_held_lock_is_not_removed(make_run: Make, lock: str) -> None:
    run = make_run(host="elsewhere", trainer=DEAD)
    lock_file = Lock(getattr(run, lock))
    assert lock_file.acquire()
    with pytest.raises(UserError, match="stop it first"):
        run.remove()
    lock_file.release()
    run.remove()
    assert not run.path.exists()


@pytest.mark.parametrize("role", ["supervisor", "trainer"])
def test_a_run_that_was_just_stopped_is_removed_when_its_processes_have_ended(
    store: RunStore, make_run: Make, role: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLA_TUI_HOME", str(store.home))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        identity = process_identity(process.pid)
        run = make_run(phase="stopped", **{role: identity})
        write_struct(run.trainer_identity_path, identity if role == "trainer" else DEAD)
        with pytest.raises(UserError, match="has stopped, and its processes still end; try again in a moment"):
            run.remove()
        threading.Timer(0.3, process.kill).start()
        assert main(["rm", run.id]) == 0
    assert capsys.readouterr().err.startswith(f"{run.id}: removed; it has no checkpoints in ")


def test_a_run_that_is_being_launched_is_not_removed(make_run: Make) -> None:
    with pytest.raises(UserError, match="is starting; stop it first"):
        make_run(phase="starting", launched=time.monotonic()).remove()


@pytest.mark.parametrize("phase", ["finished", "failed", "stopped", "running"])
def test_a_run_without_processes_is_removed(store: RunStore, make_run: Make, phase: str) -> None:
    run = make_run(phase=phase, supervisor=DEAD, trainer=DEAD)
    run.remove()
    assert store.ids() == []


def test_checkpoints_that_a_command_reads_or_a_run_has_started_from_are_kept(
    store: RunStore, make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    old, young = make_run(phase="stopped"), make_run(phase="running")
    saved, _ = checkpoint.save(checkpoint_dir(old).absolute(), 40, {"model": {}, "optimizer": {}}, {}, None)
    assert "started from it" not in plan_removal(store, old).kept
    with held(saved):
        assert "ckpt_step_40: another run or command reads it; the checkpoints" in plan_removal(store, old).kept
    spec = json.loads((young.path / "spec.json").read_text())
    (young.path / "spec.json").write_text(json.dumps({**spec, "start": {"init_from": str(saved)}}))
    assert f"run {young.name} started from it and has not ended" in plan_removal(store, old).kept
    with pytest.raises(UserError, match="has not ended; its checkpoints are kept"):
        remove_run(store, old, with_checkpoints=True)
    assert saved.is_dir()


def test_what_a_killed_save_left_is_removed_with_the_checkpoints(
    store: RunStore, make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = make_run(phase="stopped")
    folder = checkpoint_dir(run).absolute()
    checkpoint.save(folder, 40, {"model": {}, "optimizer": {}}, {}, None)
    (folder / ".ckpt_step_80.1234").mkdir()
    (folder / ".lock").write_text("locked")
    remove_run(store, run, with_checkpoints=True)
    assert not folder.exists()


def test_to_others_a_run_is_whole_until_it_is_gone(store: RunStore, make_run: Make) -> None:
    """What resumes a run while it is removed finds all of it, or nothing."""
    run = make_run(phase="running", supervisor=DEAD)
    for number in range(1000):
        (run.path / f"data-{number}.json").write_text("{}")
    remover = threading.Thread(target=run.remove)
    remover.start()
    phases = set()
    while remover.is_alive():
        phases |= {summary.phase for summary in store.summaries() if (run.path / "spec.json").parent.exists()}
    # For the moment in which its lock is taken it counts as active, like one whose supervisor starts.
    assert phases <= {"cut-off", "running"} and not list(store.runs.iterdir())


def test_what_a_killed_removal_left_is_removed_with_the_next_run(store: RunStore, make_run: Make) -> None:
    (store.runs / ".removed-20260101-000000-a").mkdir(parents=True)
    (store.runs / ".removed-20260101-000000-a" / "events.jsonl").write_text("")
    assert store.ids() == []
    make_run(phase="finished").remove()
    assert not list(store.runs.iterdir())


@pytest.mark.parametrize("error", [0, errno.EIO])
def test_a_removal_with_checkpoints_that_is_killed_or_fails_anywhere_is_finished_by_the_next(
    store: RunStore, make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """Nothing is left then, neither of a checkpoint nor of the save that a kill of the trainer cut off."""
    monkeypatch.setenv("MLA_TUI_HOME", str(store.home))
    monkeypatch.chdir(tmp_path)
    for number in range(1, 100):
        run = make_run("mine", phase="stopped")
        out = checkpoint_dir(run).absolute()
        checkpoint.save(out, 1, {"model": {}, "optimizer": {}}, {"run": run.id}, None)
        (out / ".lock").touch()
        (out / ".ckpt_step_3.999").mkdir()
        reached, why = fault_at(number, lambda run=run: remove_run(store, run, True), error)  # type: ignore[misc]
        if not reached:
            break
        files = sum(path.is_file() for path in (*out.glob(".ckpt_*/*"), *store.runs.glob(".removed-*/*")))
        assert not why.startswith("not a"), why
        assert "cannot be deleted" in why or not files or not error
        if run.path.exists():
            remove_run(store, run, with_checkpoints=True)
        else:
            assert main(["rm", run.id]) == 1  # no such run
        assert not out.exists() or (error and not list(out.iterdir()))
        assert not list(store.runs.iterdir())
    assert number > 15


def test_a_run_that_was_removed_meanwhile_is_said_to_be(make_run: Make) -> None:
    run = make_run(phase="running", supervisor=DEAD)
    run.remove()
    for change in (lambda: change_tags(run.path, ["a"]), lambda: ensure_supervisor(run), run.spec):
        with pytest.raises(UserError, match=rf"^run {run.id}: was removed$"):
            change()
    assert not run.path.exists()
