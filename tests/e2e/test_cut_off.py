"""Runs that a reboot cut off. Another boot, or another host, is played by changing the ``boot`` and ``host`` of a run
that really was killed: as a reboot leaves it, nobody lives and nothing was said."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from engine.host.files import write_json
from engine.host.process import boot_id
from engine.runs.store import RunStore
from tests.e2e.conftest import Run, World
from tui.app.app import MlaApp


def cut(run: Run, step: int = 95, **state: Any) -> None:
    """Kill the run's two processes when it has done ``step`` steps and let its state be that of another boot."""
    run.wait_step(step)
    run.kill_both()
    write_json(run.run_dir.state_path, {**run.run_dir.state(), **state})


def test_a_run_that_a_reboot_cut_off_says_so_and_goes_on_when_asked(world: World, undisturbed: Run) -> None:
    run = world.launch()
    cut(run, boot="another")
    status = run.status()
    assert (status["phase"], status["reason"]) == ("cut-off", "the machine was rebooted")
    listed = world.run("ls")
    assert "run was cut off: the machine was rebooted" in listed.stderr
    assert f"mla-tui resume {run.id}" in listed.stderr
    assert world.run("ls", "--json").stderr == ""
    # Neither looking nor asking for something else starts it.
    world.run("watch", run.id, code=1)
    for command in ("checkpoint", "pause", "stop"):
        told = world.run(command, run.id, code=1).stderr
        assert f"the machine was rebooted; continue it with: mla-tui resume {run.id}" in told
        assert len(told.splitlines()) == 1
    assert world.processes() == []

    assert "it goes on" in world.run("resume", run.id).stderr
    assert run.run_dir.state()["boot"] == boot_id()
    run.wait_end()
    assert run.losses() == undisturbed.losses()
    assert run.weights() == undisturbed.weights()
    assert [start["resumed_from"] for start in run.kind("start")] == [None, 80]
    assert [end["why"] for end in run.kind("exit")] == ["the machine was rebooted", ""]
    assert "recovering: the machine was rebooted" in world.run("watch", run.id, "--no-follow").stdout
    assert world.run("ls").stderr == ""


def test_a_run_whose_processes_were_both_killed_is_resumed_too(world: World, undisturbed: Run) -> None:
    run = world.launch()
    cut(run)
    assert "neither trainer nor supervisor is alive" in world.run("ls").stderr
    world.run("resume", run.id)
    run.wait_end()
    assert run.losses() == undisturbed.losses()


def test_all_that_were_cut_off_are_resumed_at_once(world: World) -> None:
    long = ("--share-device", "-s", "steps=100000", "-s", "save_every=0")
    runs = [world.launch(*long, name=name) for name in ("one", "two")]
    ended = world.launch("-s", "steps=5", name="ended")
    ended.wait_end()
    for run in runs:
        cut(run, 5, boot="another")
    elsewhere = world.launch(*long, name="elsewhere")
    cut(elsewhere, 5, boot="another", host="elsewhere")
    assert "2 runs were cut off: the machine was rebooted" in world.run("ls").stderr

    told = world.run("resume", "--cut-off")
    assert [line.split()[0] for line in told.stderr.splitlines()] == [run.id for run in runs]
    for run in runs:
        run.wait_step(1, attempt=2)
    assert elsewhere.who("trainer") is None
    assert len(ended.kind("start")) == 1
    assert "no run was cut off" in world.run("resume", "--cut-off").stderr


def test_two_who_resume_the_same_run_start_it_once(world: World) -> None:
    run = world.launch("-s", "steps=100000", "-s", "save_every=0")
    cut(run, 5, boot="another")
    both = [world.start("resume", run.id) for _ in range(2)]
    told = [process.communicate(timeout=90)[1] for process in both]
    assert any("it goes on" in line for line in told), told
    run.wait_step(3, attempt=2)
    assert [start["attempt"] for start in run.kind("start")] == [1, 2]
    assert [end["why"] for end in run.kind("exit")] == ["the machine was rebooted"]
    assert len(world.processes()) <= 2 + 1  # trainer and supervisor; a resume may still be leaving


def test_a_job_of_another_host_is_never_started_and_never_called_dead(world: World) -> None:
    run = world.launch("-s", "steps=100000", "-s", "save_every=0")
    run.wait_step(5)
    saved = world.run("checkpoint", run.id).stdout.strip()
    cut(run, 5, host="elsewhere")
    status = run.status()
    assert (status["phase"], status["reason"], status["host"]) == ("running", "on host elsewhere", "elsewhere")
    listed = world.run("ls")
    assert "run  on host elsewhere" in listed.stdout
    assert listed.stderr == ""
    for command in ("resume", "checkpoint", "stop"):
        told = world.run(command, run.id, code=1).stderr
        assert told == (
            f"mla-tui: run {run.id}: is on host elsewhere; resume it there with: mla-tui resume {run.id};"
            f" or continue here with: mla-tui launch --resume {saved}\n"
        )
    assert "no run was cut off" in world.run("resume", "--cut-off").stderr
    assert world.processes() == []
    world.run("rm", run.id)
    assert json.loads(world.run("ls", "--json").stdout) == []


async def test_a_key_of_the_app_resumes_it(world: World, undisturbed: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run = world.launch()
    cut(run, boot="another")
    for name in ("MLA_TUI_HOME", "XDG_CONFIG_HOME", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, world.env[name])
    app = MlaApp(RunStore())
    async with asyncio.timeout(90), app.run_test(size=(80, 24)) as pilot:
        while not app.screen.query_one("#cut-off").display:
            await pilot.pause(0.05)
        await pilot.press("r")
        while not run.run_dir.ended():
            await pilot.pause(0.05)
    run.wait_end()
    assert run.losses() == undisturbed.losses()


def test_what_is_to_be_resumed_is_one_run_or_all(world: World) -> None:
    world.refused("resume", code=2, said="name one run, or write --cut-off")
    world.refused("resume", "latest", "--cut-off", code=2, said="name one run, or write --cut-off")


def test_a_run_that_has_ended_is_not_resumed(undisturbed: Run) -> None:
    undisturbed.world.refused("resume", undisturbed.id, code=1, said="has finished")
