"""One run per device: a second run is refused, waits with --queue or shares the device with --share-device."""

from __future__ import annotations

import signal
from functools import partial

from engine.runs.device_locks import holder
from tests.e2e.conftest import Run, WaitFor, Workspace

LONG = ("-s", "steps=1000000", "-s", "save_every=0", "-s", "val_every=0")


def has_reason(run: Run, reason: str) -> bool:
    return reason in [state["reason"] for state in run.kind("state")]


def test_a_second_launch_is_refused_shares_the_device_or_waits_for_it(workspace: Workspace, wait_for: WaitFor) -> None:
    first = workspace.launch(*LONG, name="first")
    first.wait_step(1)
    done = workspace.run("launch", "-p", "nano", "--name", "second", code=1)
    assert f"cpu: is in use by run {first.id}" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in (workspace.home / "runs").iterdir()] == [first.id]

    beside = workspace.launch("--share-device", "-s", "steps=20", name="beside")
    beside.wait_end()
    assert first.process("trainer")

    queued = workspace.launch("--queue", "-s", "steps=20", name="queued")
    waits = f"waits for cpu, in use by run {first.id}"
    wait_for("the run to wait", partial(has_reason, queued, waits))
    edit = workspace.start("set", queued.id, "micro=2")
    another = workspace.launch("--queue", "-s", "steps=20", name="another")
    wait_for("the run to wait", partial(has_reason, another, waits))
    workspace.run("stop", another.id)
    another.wait_end("stopped")
    assert another.kind("start") == []
    said = edit.communicate(timeout=30)[1]  # at once, and not as if it had a micro-batch to end
    assert said.endswith(f"; is checked and made when the run trains; it is starting: {waits}\n"), said

    workspace.run("stop", first.id)
    queued.wait_end()
    assert (queued.status()["step"], queued.status()["micro"]) == (20, 2)
    assert holder(workspace.home, "cpu") is None


def test_the_device_stays_locked_when_trainer_or_supervisor_is_killed(workspace: Workspace, wait_for: WaitFor) -> None:
    """Also by a supervisor that the trainer started: it inherits the lock of its dead predecessor."""
    run = workspace.launch(*LONG)
    run.wait_step(1)
    dead = run.kill("supervisor")
    wait_for("another supervisor", lambda: (new := run.process("supervisor")) and new.pid != dead)
    assert holder(workspace.home, "cpu") == run.id

    run.kill("supervisor", signal.SIGSTOP)  # so that it starts no other trainer
    run.kill("trainer")
    assert holder(workspace.home, "cpu") == run.id
    run.kill("supervisor", signal.SIGCONT)
    run.wait_step(1, attempt=2)
    assert holder(workspace.home, "cpu") == run.id
    run.kill_both()
    # The kernel closes the files of a process a moment after its main thread has ended.
    wait_for("a free device", lambda: holder(workspace.home, "cpu") is None)
