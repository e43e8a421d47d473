"""One run a device: a second is told which run has it, waits for it, or shares it when that is asked for."""

from __future__ import annotations

import signal
from functools import partial

from engine.runs.device_locks import holder
from tests.e2e.conftest import Run, WaitFor, World

LONG = ("-s", "steps=1000000", "-s", "save_every=0", "-s", "val_every=0")


def has_reason(run: Run, reason: str) -> bool:
    return reason in [state["reason"] for state in run.kind("state")]


def test_a_second_launch_is_told_who_has_the_device(world: World) -> None:
    first = world.launch(*LONG, name="first")
    first.wait_step(1)
    told = world.run("launch", "-p", "nano", "--name", "second", code=1)
    assert f"cpu: is in use by run {first.id}" in told.stderr
    assert len(told.stderr.splitlines()) == 1
    assert [path.name for path in (world.home / "runs").iterdir()] == [first.id]

    beside = world.launch("--share-device", "-s", "steps=20", name="beside")
    beside.wait_end()
    assert first.who("trainer")


def test_a_queued_job_starts_when_the_device_is_free(world: World, wait_for: WaitFor) -> None:
    first = world.launch(*LONG, name="first")
    first.wait_step(1)
    queued = world.launch("--queue", "-s", "steps=20", name="queued")
    another = world.launch("--queue", "-s", "steps=20", name="another")
    for run in (queued, another):
        waits = f"waits for cpu, which run {first.id} uses"
        wait_for("it to wait", partial(has_reason, run, waits))
    world.run("stop", another.id)
    another.wait_end("stopped")
    assert another.kind("start") == []

    world.run("stop", first.id)
    queued.wait_end()
    assert queued.status()["step"] == 20
    assert holder(world.home, "cpu") is None


def test_the_device_stays_taken_whoever_of_the_two_is_killed(world: World, wait_for: WaitFor) -> None:
    """Also by a supervisor that the trainer called for: it is given the lock that its dead predecessor took."""
    run = world.launch(*LONG)
    run.wait_step(1)
    dead = run.kill("supervisor")
    wait_for("another supervisor", lambda: (run.who("supervisor") or {"pid": dead})["pid"] != dead)
    assert holder(world.home, "cpu") == run.id

    run.kill("supervisor", signal.SIGSTOP)  # so that it starts no other trainer
    run.kill("trainer")
    assert holder(world.home, "cpu") == run.id
    run.kill("supervisor", signal.SIGCONT)
    run.wait_step(1, attempt=2)
    assert holder(world.home, "cpu") == run.id
    run.kill_both()
    assert holder(world.home, "cpu") is None
