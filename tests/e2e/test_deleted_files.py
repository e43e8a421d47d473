"""Files of a run that vanish while it lives: it notices, is never started twice, and loses nothing."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from pathlib import Path

import pytest

from engine.events.requests import StopRequest
from engine.events.start_supervisor import start_supervisor
from engine.host.process import is_locked
from engine.runs.client import RunClient
from engine.runs.supervision import ensure_supervisor
from tests.e2e.conftest import Run, WaitFor, Workspace


def test_deleted_locks_start_nothing_twice(workspace: Workspace, reference: Run, wait_for: WaitFor) -> None:
    run = workspace.launch("-s", "steps=100000", "-s", "save_every=0", "-s", "val_every=0")
    run.wait_step(5)
    files = run.run_dir
    pids = {role: run.pid(role) for role in ("trainer", "supervisor")}
    locks = (files.supervisor_lock, files.trainer_lock, workspace.out / "run" / ".lock")
    device = next(workspace.home.glob("devices/*.lock"))
    assert all(lock.stat().st_size for lock in (*locks, device))  # what deletes empty files leaves them alone
    for path in (*locks, files.trainer_identity_path, device):
        path.unlink()
    for _ in range(2):
        start_supervisor(files)  # as a trainer or the boot service does
        ensure_supervisor(files)  # as every command does
    assert "running" in workspace.run("status", run.id).stdout
    wait_for("the locks", lambda: all(is_locked(lock) for lock in (*locks, device)), 10.0)
    files.state_path.unlink()
    wait_for("the state", lambda: files.state_path.exists() and run.status()["supervisor"]["alive"])
    run.wait_step(run.status()["step"] + 20)
    assert pids == {role: run.pid(role) for role in pids}
    files.log_path.unlink()  # and the trainer stops before it checks its files
    asyncio.run(RunClient(files).request(StopRequest(), by="command line"))
    status = run.wait_end("stopped")
    steps = [record["step"] for record in run.kind("step")]
    assert steps == list(range(1, status["step"] + 1)) and len(run.kind("start")) == status["attempt"] == 1


def remove_while_in_use(folder: Path) -> None:
    """Delete a directory in which processes write: one of their files may be renamed meanwhile."""
    while True:
        try:
            return shutil.rmtree(folder)
        except OSError:
            continue


@pytest.mark.parametrize("alive", ["both", pytest.param("only the trainer", marks=pytest.mark.faults)])
def test_a_deleted_directory_is_restored_and_the_run_stops(workspace: Workspace, alive: str, wait_for: WaitFor) -> None:
    run = workspace.launch("-s", "steps=100000", "-s", "save_every=0", "-s", "val_every=0")
    run.wait_step(5)
    if alive == "only the trainer":
        run.kill("trainer", signal.SIGSTOP)
        run.kill("supervisor")
    trainer, before = run.pid("trainer"), run.events()
    remove_while_in_use(run.run_dir.path)
    if alive == "only the trainer":
        os.kill(trainer, signal.SIGCONT)
    wait_for("the directory", lambda: run.run_dir.log_path.exists())
    status = run.wait_end("stopped")
    assert run.events()[: len(before)] == before
    steps = [record["step"] for record in run.kind("step")]
    assert steps == list(range(1, status["step"] + 1))
    assert status["checkpoint"] == str(workspace.out / "run" / f"ckpt_step_{status['step']}")
    assert "deletion of the run's directory" in status["reason"]
    assert any("while it trains; it is restored" in record["text"] for record in run.kind("alert"))


@pytest.mark.faults
def test_a_deleted_log_is_restored_and_the_run_goes_on(workspace: Workspace, wait_for: WaitFor) -> None:
    run = workspace.launch("-s", "steps=900", "-s", "save_every=0", "-s", "val_every=0")
    run.wait_step(5)
    run.run_dir.log_path.unlink()
    workspace.run("pause", run.id)
    run.run_dir.commands_path.unlink()  # read by now; the next command comes in another file
    workspace.run("resume", run.id)
    assert run.wait_end()["attempt"] == 1 and not run.process("trainer")
    assert [record["step"] for record in run.kind("step")] == list(range(1, 901))
