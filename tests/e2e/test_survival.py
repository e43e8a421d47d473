"""Whatever process is killed, and whenever: the run continues and computes the same."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from engine.train.replay import data_of_step
from profiles.errors import UserError
from tests.e2e.conftest import Run, WaitFor, Workspace, output

STEPS = 240


def assert_same_run(run: Run, reference: Run) -> None:
    """Assert equal losses and equal weights, bit for bit."""
    assert run.losses() == reference.losses()
    assert run.weights() == reference.weights()


def replaced(run: Run, dead: int) -> bool:
    """Whether a supervisor other than ``dead`` is alive."""
    process = run.process("supervisor")
    return process is not None and process.pid != dead


def assert_each_step_once(run: Run) -> list[int]:
    steps = [record["step"] for record in run.kind("step")]
    assert steps == list(range(1, len(steps) + 1))
    return steps


def test_a_killed_trainer_resumes_from_its_checkpoint(workspace: Workspace, reference: Run) -> None:
    step = random.SystemRandom().randint(5, STEPS - 20)
    print(f"kill at step {step}")
    run = workspace.launch()
    run.wait_step(step)
    killed = run.kill("trainer")
    status = run.wait_end()

    assert_same_run(run, reference)
    assert status["trainer"]["pid"] != killed
    assert status["attempt"] == 2
    killed_exit, finished = run.kind("exit")
    assert (killed_exit["signal"], killed_exit["attempt"]) == ("SIGKILL", 1)
    assert "SIGKILL" in killed_exit["why"]
    assert (finished["code"], finished["attempt"]) == (0, 2)
    first, second = run.kind("start")
    last_saved = max((c["step"] for c in run.kind("checkpoint") if c["attempt"] == 1), default=None)
    assert first["resumed_from"] is None
    assert second["resumed_from"] == last_saved
    assert "recovering" in [state["phase"] for state in run.kind("state")]


def test_a_run_without_its_checkpoints_waits_for_them(workspace: Workspace, reference: Run, wait_for: WaitFor) -> None:
    """A restart from nothing would write a second history over the first."""
    run = workspace.launch("-s", "save_every=20")
    saved = wait_for("a checkpoint", lambda: run.kind("checkpoint"))[-1]
    folder, elsewhere = workspace.out / "run", workspace.root / "elsewhere"
    run.kill("trainer", signal.SIGSTOP)
    folder.rename(elsewhere)  # as a disk that is not mounted any more
    run.kill("trainer")
    wait_for("attention", lambda: run.phase() == "needs-attention")
    assert run.status()["phase"] == "needs-attention" and str(folder) in run.status()["reason"]
    assert not folder.exists() and len(run.kind("start")) == 1
    run.kill("supervisor")
    assert run.status()["phase"] == "cut-off"
    workspace.run("resume", run.id)  # as the boot service does for every run
    wait_for("attention again", lambda: run.process("supervisor") and run.status()["phase"] == "needs-attention")
    assert len(run.kind("start")) == 1
    elsewhere.rename(folder)
    run.wait_end()
    assert run.losses() == reference.losses()
    assert run.kind("start")[1]["resumed_from"] >= saved["step"]


@pytest.mark.faults  # for its length; the run above waits in the same loop, whose stop is in test_commands
def test_a_run_that_waits_for_its_checkpoints_can_be_stopped(workspace: Workspace, wait_for: WaitFor) -> None:
    run = workspace.launch("-s", "save_every=20")
    wait_for("a checkpoint", lambda: run.kind("checkpoint"))
    run.kill("trainer", signal.SIGSTOP)
    shutil.rmtree(workspace.out / "run")
    run.kill("trainer")
    wait_for("attention", lambda: run.phase() == "needs-attention")
    workspace.run("stop", run.id)
    assert "missing" in run.wait_end("stopped")["reason"]


def test_a_run_never_goes_on_with_other_data_unasked(workspace: Workspace, wait_for: WaitFor) -> None:
    run = workspace.launch("-s", "save_every=20", "-s", "val_every=0", "-s", "steps=300")
    folder = workspace.data / "phase1" / "train"
    added = folder / "phase1-train-001.bin"

    def restart_with(change: Callable[[], object]) -> None:
        """Kill the trainer some time after a new checkpoint, and change the data before it is started again."""
        count = len(run.kind("checkpoint"))
        wait_for("a checkpoint", lambda: len(run.kind("checkpoint")) > count)
        run.kill("trainer", signal.SIGSTOP)
        change()
        run.kill("trainer")
        wait_for("attention", lambda: run.phase() == "needs-attention")

    (np.arange(30_000) % 200).astype("<u2").tofile(workspace.data / "more")
    restart_with(lambda: shutil.copy(workspace.data / "more", added))
    assert "train/phase1-train-001.bin is new" in run.status()["reason"]
    assert "needs-attention the data has changed" in workspace.run("resume", run.id).stderr
    assert len(run.kind("start")) == 1
    shown = workspace.run("data", "show", run.id).stdout
    assert shown.endswith("\nchanged since run read it: train/phase1-train-001.bin is new\n")
    workspace.run("resume", run.id, "--data-changed")
    run.wait_end()
    assert [start["data"].get("new_segment", False) for start in run.kind("start")] == [False, True]
    began = run.kind("start")[-1]
    assert (
        f"from the checkpoint at step {began['resumed_from']}, with other data than before"
        in workspace.run("watch", run.id).stdout
    )

    # What each step has read is still known, or which shard is missing.
    first = began["resumed_from"] + 1
    steps = {step: workspace.run("data", "show", run.id, "--step", str(step), "--json") for step in (1, first)}
    read = {step: json.loads(done.stdout)["window"] for step, done in steps.items()}
    assert json.loads(steps[first].stdout)["changed"] == ""
    assert (read[1]["epoch"], read[first]["position"]) == (1, 0) and read[first]["epoch"] > 1
    after = [data_of_step(run.run_dir, step) for step in range(first, 301)]
    assert added.name in {step.shards.read(step.cursor).shard.name for step in after}
    added.unlink()
    begin = data_of_step(run.run_dir, 1)
    assert begin.shards.read(begin.cursor).ids[:-1].tolist() == read[1]["ids"]
    with pytest.raises(UserError, match=r"phase1-train-001.bin: is missing; this step read 33 tokens"):
        [step.shards.read(step.cursor) for step in after]


def test_a_stop_that_no_trainer_lived_to_read_is_a_stop(workspace: Workspace, wait_for: WaitFor) -> None:
    run = workspace.launch()
    run.wait_step(5)
    run.kill("trainer", signal.SIGSTOP)  # as in a crash loop: the trainer dies before it can read the command
    stop = workspace.start("stop", run.id, "--no-save")
    wait_for("the command", lambda: run.run_dir.commands_path.exists() and run.run_dir.commands_path.read_text())
    run.kill("trainer")
    status = run.wait_end("stopped")
    assert stop.wait(60) == 0
    assert status["attempt"] == 1 and "before it could stop: killed" in status["reason"]


@pytest.mark.faults
def test_a_trainer_killed_repeatedly_still_finishes(workspace: Workspace, reference: Run) -> None:
    run = workspace.launch()
    for attempt, step in ((1, 60), (2, 110)):
        run.wait_step(step, attempt)
        run.kill("trainer")
    assert run.wait_end()["attempt"] == 3
    assert_same_run(run, reference)


def test_a_supervisor_killed_repeatedly_is_replaced(workspace: Workspace, reference: Run, wait_for: WaitFor) -> None:
    run = workspace.launch("-s", "steps=800", "-s", "save_every=0", "-s", "val_every=0")
    trainer = run.pid("trainer")
    for step in (30, 200):
        run.wait_step(step)
        dead = run.kill("supervisor")
        # The trainer itself starts another one; no client asks for it here.
        wait_for("another supervisor", partial(replaced, run, dead))
        assert run.pid("trainer") == trainer
    status = run.wait_end()
    assert len(assert_each_step_once(run)) == 800
    assert (status["attempt"], status["step"]) == (1, 800)
    assert [record["code"] for record in run.kind("exit")] == [0]


def test_a_supervisor_killed_at_once_loses_nothing(workspace: Workspace, reference: Run, wait_for: WaitFor) -> None:
    """Before a run's first step there may be no trainer that could start another supervisor."""
    run = workspace.launch()
    run.kill("supervisor")
    watch = workspace.start("watch", run.id, "--json")
    out, err = watch.communicate(timeout=90)
    assert watch.returncode == 0, err
    run.wait_end()
    assert_same_run(run, reference)
    assert len([line for line in out.splitlines() if json.loads(line)["kind"] == "step"]) == STEPS


def test_reading_a_run_starts_nothing(workspace: Workspace, wait_for: WaitFor) -> None:
    run = workspace.launch("-s", "steps=100000", "-s", "save_every=0")
    run.wait_step(20)
    trainer = run.pid("trainer")
    os.kill(trainer, signal.SIGSTOP)  # so that it cannot start another supervisor itself
    run.kill("supervisor")
    for _ in range(3):
        status = run.status()
        (listed,) = json.loads(workspace.run("ls", "--json").stdout)
        assert listed | {"evals": []} == status
        assert status["supervisor"]["alive"] is False
        assert status["trainer"] == {"pid": trainer, "alive": True, "visible": True}
        assert status["phase"] == "running"
    assert [process.pid for process in workspace.processes()] == [trainer]
    os.kill(trainer, signal.SIGCONT)
    assert run.pid("supervisor")


def test_a_run_that_lost_both_is_cut_off_until_it_is_resumed_or_watched(workspace: Workspace, reference: Run) -> None:
    run = workspace.launch()
    watchers = [workspace.start("watch", run.id, *options) for options in ((), ("--json",))]
    for watch in watchers:
        assert output(watch).readline()
    run.wait_step(95)
    run.kill_both()
    (out, err), (records, reason) = (watch.communicate(timeout=90) for watch in watchers)
    assert [watch.returncode for watch in watchers] == [1, 1]
    assert (out.splitlines()[-1].partition(" ")[0], err) == ("cut-off", "")
    assert all(json.loads(line)["at"] for line in records.splitlines()[1:])
    assert reason.startswith("cut-off at step ") and len(reason.splitlines()) == 1

    status = run.status()
    assert status["phase"] == "cut-off"
    assert (status["trainer"]["alive"], status["supervisor"]["alive"]) == (False, False)
    assert status["step"] >= 95
    assert workspace.processes() == []

    for command in ("checkpoint", "pause", "stop"):
        err = workspace.run(command, run.id, code=1).stderr
        assert "was cut off: neither trainer nor supervisor is alive; continue it with: mla-tui resume" in err
    assert workspace.processes() == []
    assert "was cut off at step" in workspace.run("watch", run.id).stderr
    run.wait_end()
    assert_same_run(run, reference)
    assert [start["resumed_from"] for start in run.kind("start")] == [None, 80]
    assert "while no supervisor was running" in run.kind("exit")[0]["why"]


@pytest.mark.parametrize("how", ["damaged", pytest.param("removed", marks=pytest.mark.faults)])
def test_a_lost_checkpoint_costs_the_steps_since_the_previous_one(workspace: Workspace, how: str) -> None:
    run = workspace.launch("-s", "save_every=0", "-s", "steps=600")
    for step in (10, 30):
        run.wait_step(step)
        workspace.run("checkpoint", run.id)
    kept, newest = (Path(r["path"]) for r in run.kind("checkpoint"))
    if how == "removed":
        shutil.rmtree(newest)
    else:
        model = newest / "model.safetensors"
        model.write_bytes(model.read_bytes()[:-8])
    run.kill("trainer")
    run.wait_end()
    _, again = run.kind("start")
    assert f"ckpt_step_{again['resumed_from']}" == kept.name
    (alert,) = run.kind("alert")
    why = ": is missing" if how == "removed" else "/model.safetensors: is not what was saved"
    assert f"{newest.name}{why}" in alert["text"]
    assert newest.with_name(f"{newest.name}.damaged").is_dir() == (how == "damaged")
    before, after = ({r["step"]: r["loss"] for r in run.kind("step") if r["attempt"] == n} for n in (1, 2))
    repeated = before.keys() & after.keys()
    assert len(repeated) >= 20
    assert {n: before[n] for n in repeated} == {n: after[n] for n in repeated}


def test_sigterm_while_the_trainer_starts_is_a_stop(workspace: Workspace, wait_for: WaitFor) -> None:
    run = workspace.launch()
    wait_for("the trainer's identity", lambda: run.run_dir.trainer_identity_path.exists())
    run.kill("trainer", signal.SIGTERM)
    assert run.kind("step") == []
    run.wait_end("stopped")
    assert len(run.kind("start")) == 1


def test_sigterm_to_both_is_a_shutdown_of_the_machine(workspace: Workspace, reference: Run, wait_for: WaitFor) -> None:
    """A shutdown sends SIGTERM to every process. The trainer saves, and the run is cut off, not ended."""
    run = workspace.launch()
    run.wait_step(60)
    for role in ("supervisor", "trainer"):
        run.kill(role, signal.SIGTERM)
    wait_for("both to end", lambda: workspace.processes() == [])
    status = run.status()
    assert status["phase"] == "cut-off"
    assert status["checkpoint"].endswith(f"ckpt_step_{status['step']}")
    workspace.run("watch", run.id)
    run.wait_end()
    assert run.losses() == reference.losses()
    assert run.kind("start")[1]["resumed_from"] == status["step"]


@pytest.mark.faults
def test_sigterm_to_a_supervisor_alone_costs_nothing(workspace: Workspace, reference: Run, wait_for: WaitFor) -> None:
    run = workspace.launch("-s", "steps=1500", "-s", "save_every=0", "-s", "val_every=0")
    run.wait_step(10)
    dead = run.kill("supervisor", signal.SIGTERM)
    wait_for("another supervisor", lambda: replaced(run, dead))
    workspace.run("stop", run.id, "--no-save")
    run.wait_end("stopped")
    assert [start["resumed_from"] for start in run.kind("start")] == [None]


def test_a_paused_run_restarts_paused(workspace: Workspace, reference: Run, wait_for: WaitFor) -> None:
    run = workspace.launch()
    run.wait_step(50)
    workspace.run("pause", run.id)
    run.kill("trainer")
    wait_for(
        "the second attempt to pause",
        lambda: [s for s in run.kind("state") if s["attempt"] == 2][-1:] and run.phase() == "paused",
    )
    wait_for("the reason", lambda: "was paused when" in run.status()["reason"])
    assert run.kind("step")[-1]["attempt"] == 1
    assert "running" in workspace.run("resume", run.id).stderr
    run.wait_step(90)
    run.kill("trainer")  # once resumed, it stays resumed
    run.wait_end()
    assert_same_run(run, reference)


@pytest.mark.parametrize("when", ["paused", pytest.param("validating", marks=pytest.mark.faults), "saving"])
def test_sigterm_twice_whatever_the_trainer_is_doing(workspace: Workspace, wait_for: WaitFor, when: str) -> None:
    """Checkpoint, then exit: the second signal changes nothing."""
    run = workspace.launch("-s", "steps=100000", "-s", "save_every=3", "-s", "keep=1", "-s", "val_every=3")
    run.wait_step(20)
    if when == "paused":
        workspace.run("pause", run.id)
    else:
        kind = "val" if when == "validating" else "checkpoint"
        count = len(run.kind(kind))
        wait_for(f"the next {kind}", lambda: len(run.kind(kind)) > count)
    trainer = run.pid("trainer")
    for _ in range(2):
        os.kill(trainer, signal.SIGTERM)
    status = run.wait_end("stopped")
    assert (status["attempt"], run.kind("exit")[-1]["code"]) == (1, 0)
    assert status["checkpoint"].endswith(f"ckpt_step_{status['step']}")
    assert (Path(status["checkpoint"]) / "manifest.json").is_file()
    assert "SIGTERM" in status["reason"]
