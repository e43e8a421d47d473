"""Runs that a reboot cut off. The tests kill a run and change ``boot`` or ``host`` in its state.

As after a reboot, no process is alive and no exit was logged.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from engine.host.files import write_json
from engine.host.process import boot_id, is_locked
from engine.host.struct_json import to_dict, write_struct
from engine.runs.store import FORMAT, RunStore
from tests.e2e.conftest import DEADLINE, Run, Workspace, wait_for
from tests.unit.tui.helpers import on_screen
from tui.app.app import MlaApp


def cut_off(run: Run, step: int = 95, **state: Any) -> None:
    """Kill both processes of the run after ``step`` and change its ``state``."""
    run.wait_step(step)
    run.kill_both()
    write_json(run.run_dir.state_path, {**to_dict(run.run_dir.state()), **state})


def test_a_run_that_a_reboot_cut_off_is_listed_and_can_be_resumed(workspace: Workspace, reference: Run) -> None:
    run = workspace.launch()
    cut_off(run, boot="another")
    status = run.status()
    assert (status["phase"], status["reason"]) == ("cut-off", "the machine was rebooted")
    listed = workspace.run("ls")
    assert "run was cut off: the machine was rebooted" in listed.stderr
    assert f"mla-tui resume {run.id}" in listed.stderr
    assert workspace.run("ls", "--json").stderr == ""
    # Neither reading it nor any other command starts it.
    workspace.run("watch", run.id, code=1)
    for command in ("checkpoint", "stop"):
        err = workspace.run(command, run.id, code=1).stderr
        assert f"the machine was rebooted; continue it with: mla-tui resume {run.id}" in err
        assert len(err.splitlines()) == 1
    assert workspace.processes() == []

    assert "; resuming" in workspace.run("resume", run.id).stderr
    assert run.run_dir.state().boot == boot_id()
    run.wait_end()
    assert run.losses() == reference.losses()
    assert run.weights() == reference.weights()
    assert [start["resumed_from"] for start in run.kind("start")] == [None, 80]
    assert [end["why"] for end in run.kind("exit")] == ["the machine was rebooted", ""]
    assert "recovering: the machine was rebooted" in workspace.run("watch", run.id, "--no-follow").stdout
    assert workspace.run("ls").stderr == ""


@pytest.mark.faults  # test_survival kills both too, and watches the run instead of resuming it
def test_a_run_whose_processes_were_both_killed_is_resumed_too(workspace: Workspace, reference: Run) -> None:
    run = workspace.launch()
    cut_off(run)
    assert "neither trainer nor supervisor is alive" in workspace.run("ls").stderr
    workspace.run("resume", run.id)
    run.wait_end()
    assert run.losses() == reference.losses()


def test_all_cut_off_runs_are_resumed_by_one_command(workspace: Workspace) -> None:
    runs = [workspace.cut_off_run(name, boot="another") for name in ("one", "two")]
    ended = workspace.cut_off_run("ended")
    state = ended.run_dir.state()
    state.phase, state.at = "finished", ended.run_dir.log_path.stat().st_size
    write_struct(ended.run_dir.state_path, state)
    elsewhere = workspace.cut_off_run("elsewhere", host="elsewhere", boot="another")
    assert "2 runs were cut off: the machine was rebooted" in workspace.run("ls").stderr
    newer = workspace.cut_off_run("newer", boot="another")  # of another version; it must not keep the others waiting
    write_json(newer.run_dir.state_path, {**to_dict(newer.run_dir.state()), "format": FORMAT + 1})

    done = workspace.run("resume", "--cut-off", code=1)
    *resumed, said = done.stderr.splitlines()
    assert said.startswith(f"mla-tui: run {newer.id}: was created by mla-tui ")
    assert [line.split()[0] for line in resumed] == [run.id for run in runs]
    shutil.rmtree(newer.run_dir.path)
    for run in runs:
        run.wait_step(1, attempt=2)
    assert elsewhere.process("trainer") is None
    assert len(ended.kind("start")) == 1
    assert "no run was cut off" in workspace.run("resume", "--cut-off").stderr


def test_two_commands_that_resume_the_same_run_start_it_once(workspace: Workspace) -> None:
    run = workspace.cut_off_run("run", boot="another")
    both = [workspace.start("resume", run.id) for _ in range(2)]
    err = [process.communicate(timeout=90)[1] for process in both]
    assert any("; resuming" in line for line in err), err
    run.wait_step(3, attempt=2)
    assert [start["attempt"] for start in run.kind("start")] == [1, 2]
    assert [end["why"] for end in run.kind("exit")] == ["the machine was rebooted"]
    assert len(workspace.processes()) <= 2 + 1  # trainer and supervisor; a resume command may not have exited yet


def test_a_run_of_another_host_is_never_started_and_never_reported_dead(workspace: Workspace) -> None:
    saved = str(workspace.out / "run" / "ckpt_step_5")
    run = workspace.cut_off_run("run", host="elsewhere", boot="another", checkpoint=saved)
    status = run.status()
    seen = time.strftime("%H:%M", time.localtime(status["seen"]))
    reason = f"last seen running {seen} on elsewhere"
    assert (status["phase"], status["reason"], status["host"]) == ("running", reason, "elsewhere")
    listed = workspace.run("ls")
    assert f"seen {seen} " in listed.stdout and f"run  {reason}" in listed.stdout
    assert listed.stderr == ""
    for command in ("resume", "checkpoint", "stop"):
        err = workspace.run(command, run.id, code=1).stderr
        assert err == (
            f"mla-tui: run {run.id}: is on host elsewhere; resume it there with: mla-tui resume {run.id};"
            f" or continue here with: mla-tui launch --resume {saved}\n"
        )
    assert "no run was cut off" in workspace.run("resume", "--cut-off").stderr
    assert workspace.processes() == []
    workspace.run("rm", run.id)
    assert json.loads(workspace.run("ls", "--json").stdout) == []


@pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run(["unshare", "-upf", "--mount-proc", "true"]).returncode != 0,
    reason="namespaces need root and unshare",
)
def test_a_run_is_alive_seen_from_a_container_on_the_same_machine(workspace: Workspace) -> None:
    """Another pid namespace and host name. Without a supervisor the trainer starts one, and nothing in there does."""
    run = workspace.launch("-s", "steps=100000", "-s", "save_every=0")
    run.wait_step(3)
    words = ["unshare", "-upf", "--mount-proc", "sh", "-c", 'hostname inside; exec "$@"', "sh", str(workspace.command)]

    def in_container(*args: str) -> subprocess.Popen[str]:
        out, err = subprocess.PIPE, subprocess.STDOUT
        return subprocess.Popen(
            [*words, *args], env=workspace.env, cwd=workspace.root, text=True, stdout=out, stderr=err
        )

    status = in_container("status", run.id).communicate(timeout=DEADLINE)[0]
    trainer = run.pid("trainer")
    assert f"pid {trainer} of another container (pid namespace), alive\n" in status, status
    assert "not running" not in status and "last seen" not in status
    assert "is running; stop it first" in in_container("rm", run.id).communicate(timeout=DEADLINE)[0]
    run.kill("trainer", signal.SIGSTOP)
    run.kill("supervisor")
    edit = in_container("set", run.id, "lr_scale=0.5")
    commands = run.run_dir.commands_path
    wait_for("the command", lambda: commands.exists() and commands.read_text())
    assert not is_locked(run.run_dir.supervisor_lock)
    os.kill(trainer, signal.SIGCONT)
    assert "lr_scale 1.0 → 0.5" in edit.communicate(timeout=DEADLINE)[0]
    assert run.pid("supervisor") and run.pid("trainer") == trainer


async def test_a_key_in_the_app_resumes_it(
    workspace: Workspace, reference: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the monitor while the run is killed, and in the list of runs after a reboot. No other key restarts it."""
    run = workspace.launch()
    for name in ("MLA_TUI_HOME", "XDG_CONFIG_HOME", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, workspace.env[name])
    app = MlaApp(RunStore(), run.id)
    async with asyncio.timeout(90), app.run_test(size=(80, 24)) as pilot:

        async def until(condition: Callable[[], bool]) -> None:
            while not condition():
                await pilot.pause(0.05)

        await until(lambda: "ETA" in on_screen(app, "StatusLine"))
        await asyncio.to_thread(run.kill_both)
        async with asyncio.timeout(3):
            await until(lambda: "cut-off" in on_screen(app, "StatusLine"))
        assert "ETA" not in on_screen(app, "StatusLine")
        await until(lambda: "r resumes it" in on_screen(app, "Notice"))
        await pilot.press("p")
        await until(lambda: "the run is not running: it was cut off; r resumes it" in on_screen(app, "LogView"))
        assert workspace.processes() == []
        await pilot.press("r")
        await until(lambda: "running" in on_screen(app, "StatusLine"))
        await until(lambda: not app.screen.query_one("Notice").display)
        await asyncio.to_thread(cut_off, run, 95, boot="another")
        await pilot.press("q")
        await until(lambda: "was cut off: the machine was rebooted" in on_screen(app, "#cut-off"))
        await pilot.press("r")
        await until(run.run_dir.ended)
    run.wait_end()
    assert run.losses() == reference.losses()


def test_resume_takes_one_run_or_all(workspace: Workspace) -> None:
    workspace.assert_refused("resume", code=2, message="name one run, or write --cut-off")
    workspace.assert_refused("resume", "latest", "--cut-off", code=2, message="name one run, or write --cut-off")


def test_a_run_that_has_ended_is_not_resumed(reference: Run) -> None:
    reference.workspace.assert_refused("resume", reference.id, code=1, message="has finished")
