"""Why a trainer exited is logged; a hung run is reported and can be killed; unrelated processes are never signalled."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from engine.host.files import read_json, write_json
from engine.host.process import is_locked, process_identity
from engine.host.programs import SUPERVISOR
from engine.host.struct_json import write_struct
from tests.e2e.conftest import Run, WaitFor, Workspace

LONG = ("-s", "steps=1000000", "-s", "save_every=0", "-s", "val_every=0")
CGROUP = Path("/sys/fs/cgroup/memory" if Path("/sys/fs/cgroup/memory").is_dir() else "/sys/fs/cgroup")
TOO_LITTLE = 128 << 20  # bytes; a trainer needs twice that before its first step
LIMIT = "memory.limit_in_bytes" if CGROUP.name == "memory" else "memory.max"


@pytest.fixture
def cgroup(workspace: Workspace) -> Iterator[Path]:
    """A cgroup of our own, in which the kernel can be made to kill for lack of memory."""
    folder = CGROUP / f"mla-tui-{os.getpid()}"
    try:
        folder.mkdir()
        if not (folder / LIMIT).exists():
            raise OSError("the memory controller is not there")
    except OSError as error:
        with contextlib.suppress(OSError):
            folder.rmdir()
        pytest.skip(f"a memory cgroup cannot be made here: {error}")
    yield folder
    workspace.close()
    folder.rmdir()


def test_an_oom_kill_of_the_kernel_is_recognized_and_restarts_with_a_smaller_micro(
    workspace: Workspace, reference: Run, cgroup: Path, wait_for: WaitFor
) -> None:
    (cgroup / LIMIT).write_text(str(TOO_LITTLE))
    settings = ("--force", "-s", "memory.strategy=device")  # "auto" looks at the memory of the cgroup
    words = [str(workspace.command), "launch", "-p", "nano", "--name", "run", *settings]
    into_it = f'echo $$ > {cgroup}/cgroup.procs && exec "$@"'
    done = subprocess.run(
        ["sh", "-c", into_it, "sh", *words], env=workspace.env, cwd=workspace.root, capture_output=True
    )
    run = workspace.find(done.stdout.decode().strip())
    oom = wait_for("the kernel to kill", lambda: run.kind("oom"))[0]
    (cgroup / LIMIT).write_text(str(8 << 30))
    run.wait_end()
    assert (oom["where"], oom["action"]) == ("host", "restart")
    exited = run.kind("exit")[0]
    assert exited["signal"] == "SIGKILL"
    assert "the limit of its cgroup" in exited["why"]
    edit = run.kind("edit")[0]
    assert (edit["by"], edit["step"], edit["changed"]["micro"]) == ("oom", 0, [4, 2])
    assert run.kind("step")[0]["micro"] == 2
    assert run.kind("exit")[-1]["code"] == 0
    plain, found = reference.losses(), run.losses()
    assert found.keys() == plain.keys()
    for step in range(1, 41):
        assert found[step] == pytest.approx(plain[step], rel=1e-5)


@pytest.mark.faults  # ten seconds must pass; tests/unit/runs/test_watchdog.py has a clock of its own
def test_a_hung_run_is_reported(workspace: Workspace, wait_for: WaitFor) -> None:
    run = workspace.launch(*LONG)
    run.wait_step(30)
    trainer = run.kill("trainer", signal.SIGSTOP)
    (alert,) = wait_for("the alert", lambda: run.kind("alert"))
    assert alert["what"] == "stall"
    assert "no progress for 1" in alert["text"]
    wait_for("what ls says", lambda: " stalled " in workspace.run("ls").stdout)
    run.kill("trainer", signal.SIGCONT)
    wait_for("the end of the stall", lambda: [r for r in run.kind("alert") if r["what"] == "stall-over"])
    assert run.pid("trainer") == trainer


def test_a_hung_run_can_be_killed_by_a_supervisor_that_adopted_it(workspace: Workspace, wait_for: WaitFor) -> None:
    run = workspace.launch(*LONG)
    run.wait_step(3)
    run.kill("supervisor")
    wait_for("the supervisor that adopts it", lambda: run.process("supervisor"))
    run.kill("trainer", signal.SIGSTOP)
    workspace.run("stop", run.id, "--kill")
    run.wait_end("stopped")
    exited = run.kind("exit")[-1]
    assert (exited["signal"], exited["why"]) == ("SIGKILL", "killed (SIGKILL)")


@pytest.mark.faults
def test_two_ranks_are_killed_at_once_too(workspace: Workspace, wait_for: WaitFor) -> None:
    run = workspace.launch(*LONG, "-s", "gpus_per_node=2")
    run.wait_step(3)
    workspace.run("stop", run.id, "--kill")
    run.wait_end("stopped")
    wait_for("the end of both ranks", lambda: workspace.processes() == [])


def test_another_process_with_a_dead_trainers_pid_is_never_signalled(workspace: Workspace) -> None:
    """Pids are reused. The process that has ours now must be neither adopted nor killed."""
    run = workspace.cut_off_run("run")
    unrelated = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        theirs = process_identity(unrelated.pid, attempt=1)
        forged = replace(theirs, start_ticks=theirs.start_ticks - 1)
        write_struct(run.run_dir.trainer_identity_path, forged)
        write_struct(run.run_dir.state_path, replace(run.run_dir.state(), trainer=forged, supervisor=forged))
        assert run.status()["phase"] == "cut-off"
        assert run.status()["trainer"]["alive"] is False
        workspace.run("resume", run.id)  # starts a supervisor
        run.wait_step(1, attempt=2)
        workspace.run("stop", run.id, "--kill")
        run.wait_end("stopped")
        assert unrelated.poll() is None
    finally:
        unrelated.kill()
        unrelated.wait()


def test_of_competing_supervisors_one_remains(workspace: Workspace, reference: Run, wait_for: WaitFor) -> None:
    run = workspace.cut_off_run("run", "train.steps=300")
    argv = [sys.executable, "-m", SUPERVISOR, str(run.run_dir.path)]
    racers = [subprocess.Popen(argv, env=workspace.env, cwd=run.run_dir.path) for _ in range(8)]
    run.wait_step(1, attempt=2)
    wait_for("the other supervisors to exit", lambda: sum(racer.poll() is None for racer in racers) == 1)
    assert is_locked(run.run_dir.supervisor_lock)
    run.wait_end()
    assert [racer.wait(30) for racer in racers] == [0] * 8
    steps = [r["step"] for r in run.kind("step") if r["attempt"] == 2]
    assert steps == list(range(1, 301))
    assert len(run.kind("start")) == 2


def test_an_upgrade_during_a_run_is_reported(workspace: Workspace, wait_for: WaitFor) -> None:
    run = workspace.launch(*LONG)
    run.wait_step(3)
    run.kill("trainer", signal.SIGSTOP)  # it must not start a supervisor before the state is changed
    run.kill("supervisor")
    write_json(run.run_dir.state_path, {**read_json(run.run_dir.state_path), "version": "0.0.9"})
    run.kill("trainer", signal.SIGCONT)
    (alert,) = wait_for("the alert", lambda: [r for r in run.kind("alert") if r["what"] == "version"])
    assert "0.0.9" in alert["text"]


def test_lingering_users_get_scopes(workspace: Workspace, tmp_path: Path) -> None:
    """Two scripts stand for systemd, which does not run here."""
    folder = tmp_path / "bin"
    folder.mkdir()
    calls = tmp_path / "calls"
    scripts = {
        "loginctl": "echo yes",
        "systemd-run": f'echo "$@" >> {calls}\nwhile [ "$1" != -- ]; do shift; done\nshift\nexec "$@"',
    }
    for name, body in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{body}\n")
        (folder / name).chmod(0o755)
    workspace.env.update(PATH=f"{folder}:{workspace.env['PATH']}", XDG_RUNTIME_DIR=str(tmp_path))
    run = workspace.launch("-s", "steps=20")
    run.wait_end()
    units = [word for word in calls.read_text().split() if word.startswith("--unit")]
    assert [unit.rpartition("-")[0] for unit in units] == [
        f"--unit=mla-tui-{run.id}-supervisor",
        f"--unit=mla-tui-{run.id}-trainer",
    ]
    assert json.loads(workspace.run("status", run.id, "--json").stdout)["phase"] == "finished"
