"""Tests the commands on runs: pause, resume, checkpoint, stop, launch --resume, rm, ls, logs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.conftest import Run, WaitFor, Workspace, output

STEPS = 240
LONG = ("-s", "steps=1000000", "-s", "save_every=0", "-s", "val_every=0")


def checkpoints(run: Run) -> list[str]:
    return sorted(path.name for path in (run.workspace.out / run.run_dir.name).glob("ckpt_step_*"))


def test_a_paused_run_makes_no_steps_and_resume_continues_it(workspace: Workspace, reference: Run) -> None:
    run = workspace.launch()
    run.wait_step(20)
    assert "paused" in workspace.run("pause", run.id).stderr
    paused = run.status()
    assert paused["phase"] == "paused"
    assert run.status()["step"] == paused["step"]
    assert run.events()[-1]["kind"] in ("state", "telemetry")
    assert "running" in workspace.run("resume", run.id).stderr
    run.wait_end()
    assert run.losses() == reference.losses()


def test_a_run_is_saved_stopped_and_removed_but_not_its_checkpoints(workspace: Workspace) -> None:
    run = workspace.launch(*LONG)
    run.wait_step(10)
    path = workspace.run("checkpoint", run.id).stdout.strip()
    (saved,) = run.kind("checkpoint")
    assert saved["path"] == path == str(workspace.out / "run" / f"ckpt_step_{saved['step']}")
    assert sorted(
        json.loads((workspace.out / "run" / f"ckpt_step_{saved['step']}" / "manifest.json").read_text())["files"]
    ) == [
        "model.safetensors",
        "optimizer.safetensors",
        "trainer.json",
    ]
    assert run.status()["checkpoint"] == path
    run.wait_step(saved["step"] + 5)  # and training continues
    assert "stop it first" in workspace.run("rm", run.id, code=1).stderr
    workspace.run("rm", "latest", code=2)
    assert "stopped at step" in workspace.run("stop", run.id).stderr
    status = run.wait_end("stopped")
    saves = sorted([f"ckpt_step_{saved['step']}", f"ckpt_step_{status['step']}"])
    assert checkpoints(run) == saves
    assert status["ended"] >= status["started"]
    assert workspace.processes() == []
    kept = rf"{run.id}: removed; its checkpoints are kept: {workspace.out / 'run'} \(2 checkpoints, [0-9.]+ [KM]iB\)\n"
    assert re.fullmatch(kept, workspace.run("rm", run.id).stderr)
    assert not run.run_dir.path.exists()
    assert all((workspace.out / "run" / name / "model.safetensors").is_file() for name in saves)
    assert json.loads(workspace.run("ls", "--json").stdout) == []


@pytest.mark.faults
def test_one_resume_ends_a_pause_that_was_requested_twice(workspace: Workspace, wait_for: WaitFor) -> None:
    run = workspace.launch(*LONG)
    run.wait_step(5)
    assert "requested from the command line" in workspace.run("pause", run.id).stderr
    assert "already" in workspace.run("pause", run.id).stderr
    assert "is checked and made after the run resumes" in workspace.run("set", run.id, "micro=2").stderr
    assert "running" in workspace.run("resume", run.id).stderr
    (edit,) = wait_for("the edit", lambda: run.kind("edit"))
    run.wait_step(edit["step"] + 10)
    assert run.kind("step")[-1]["micro"] == 2


def test_commands_take_effect_in_the_order_they_were_sent(workspace: Workspace, wait_for: WaitFor) -> None:
    """A pause is not undone by a resume sent before it and comes after a checkpoint sent before it, even if the trainer
    reads all three at once. A command that waits for it says why."""
    run = workspace.launch(*LONG)
    commands = run.run_dir.commands_path

    def sent(method: str) -> bool:
        return commands.exists() and f'"{method}"' in commands.read_text()

    run.wait_step(5)
    trainer = run.pid("trainer")
    os.kill(trainer, signal.SIGSTOP)
    clients = [workspace.start("resume", run.id)]
    wait_for("the first command", lambda: sent("resume"))
    clients.append(workspace.start("checkpoint", run.id))
    wait_for("the second command", lambda: sent("checkpoint"))
    clients.append(workspace.start("pause", run.id))
    wait_for("the third command", lambda: sent("pause"))
    assert clients[2].stderr is not None
    assert f"its trainer is stopped by a signal: kill -CONT {trainer} " in clients[2].stderr.readline()
    os.kill(trainer, signal.SIGCONT)
    assert [process.wait(60) for process in clients] == [0, 0, 0]
    answers = [(state["phase"], state["reason"]) for state in run.kind("state") if state["id"]]
    assert answers[0] == ("running", "was not paused")
    assert answers[1][0] == "paused" and len(answers) == 2
    assert run.phase() == "paused"
    (saved,) = run.kind("checkpoint")
    assert checkpoints(run) == [f"ckpt_step_{saved['step']}"] == [f"ckpt_step_{run.kind('step')[-1]['step']}"]
    workspace.run("stop", run.id, "--no-save")
    run.wait_end("stopped")


def test_a_stop_during_the_last_validation_is_a_stop(workspace: Workspace) -> None:
    rng = np.random.default_rng(0)
    val = workspace.data / "phase1" / "val" / "phase1-val-000.bin"
    rng.integers(0, 256, 300_000).astype("<u2").tofile(val)
    run = workspace.launch("-s", "steps=20", "-s", "val_every=1000", "-s", "val_sequences=8000")
    run.wait_step(20)
    workspace.run("stop", run.id)
    status = run.wait_end("stopped")
    assert (status["attempt"], checkpoints(run)) == (1, ["ckpt_step_20"])
    assert [val["step"] for val in run.kind("val")] == [0]


@pytest.mark.parametrize("how", ["its output", "its terminal"])
def test_a_foreground_run_saves_and_ends_when_its_output_or_terminal_is_closed(workspace: Workspace, how: str) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the run inherits it, and nohup's must be honoured
    train = workspace.start("train", "-p", "nano", "-s", "steps=1000000", "-s", "save_every=0", "--name", "front")
    signal.signal(signal.SIGHUP, before)
    while not output(train).readline().startswith("step"):
        pass
    if how == "its terminal":
        train.send_signal(signal.SIGHUP)
    else:
        output(train).close()
    err = train.communicate(timeout=90)[1]
    assert (train.returncode, err.count("its reader has ended")) == (0, how == "its output")
    assert [path.name for path in (workspace.out / "front").glob("ckpt_step_*")]


def test_a_run_can_be_stopped_before_its_first_step(workspace: Workspace) -> None:
    run = workspace.launch(*LONG)
    workspace.run("stop", run.id)
    assert run.wait_end("stopped")["step"] in (None, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.faults)])
def test_a_signal_to_the_trainer_saves_and_ends(workspace: Workspace, number: signal.Signals) -> None:
    run = workspace.launch(*LONG)
    run.wait_step(10)
    run.kill("trainer", number)
    status = run.wait_end("stopped")
    assert checkpoints(run) == [f"ckpt_step_{status['step']}"]
    assert number.name in status["reason"]
    assert status["attempt"] == 1


def test_a_resumed_run_has_the_losses_and_weights_of_an_uninterrupted_one(workspace: Workspace, reference: Run) -> None:
    """Killed before it saves, it restarts from the same checkpoint."""
    first = workspace.launch()
    first.wait_step(100)
    workspace.run("stop", first.id)
    step = first.wait_end("stopped")["step"]
    second = workspace.launch("--resume", workspace.out / "run", "-s", "save_every=0", name="other")
    second.wait_step(step + 10)
    second.kill("trainer")
    second.wait_end()
    assert second.id != first.id
    assert [start["resumed_from"] for start in second.kind("start")] == [step, step]
    assert first.losses() | second.losses() == reference.losses()
    assert second.weights() == reference.weights()


def test_resume_without_a_profile_uses_the_spec_of_the_checkpoint(reference: Run) -> None:
    """Only the overrides differ from the spec saved with the checkpoint."""
    workspace = reference.workspace
    origin = workspace.out / "run" / "ckpt_step_200"
    done = workspace.run("launch", "--resume", origin, "--name", "longer", "-s", "steps=250")
    run = workspace.find(done.stdout.strip())
    run.wait_end()
    assert sorted(run.losses()) == list(range(201, 251))
    assert run.run_dir.spec().train.steps == 250
    # The schedule depends on the number of steps, so only the first step has the same loss.
    assert run.losses()[201] == reference.losses()[201]


def test_init_from_loads_only_the_weights(reference: Run) -> None:
    workspace = reference.workspace
    done = workspace.run(
        *("launch", "-p", "nano", "--name", "second", "--init-from", workspace.out / "run", "-s", "steps=30"),
    )
    run = workspace.find(done.stdout.strip())
    run.wait_end()
    losses = run.losses()
    assert sorted(losses) == list(range(1, 31))
    assert run.kind("start")[0]["resumed_from"] is None
    # It starts with the trained weights, the first sequences and a new warm-up.
    assert losses[1] < reference.losses()[1] / 2
    assert run.kind("step")[0]["lr"] == reference.kind("step")[0]["lr"]
    assert run.kind("val")[0]["loss"] == reference.kind("val")[-1]["loss"]


def test_the_documented_ways_to_continue_run(reference: Run, tmp_path: Path) -> None:
    """docs/recipes.md: a mixture of old and new data, and a longer context, each with a fresh schedule."""
    workspace = reference.workspace
    for phase in ("phase1", "new"):
        shutil.copytree(workspace.data / "phase1", tmp_path / phase)
    fresh = ("optim.schedule=linear", "warmup=2", "optim.lr=1e-3", "final_lr=0", "steps=4", f"data.root={tmp_path}")
    ways = {
        "mixed": ("data.sources={phase1=0.3, new=0.7}",),
        "longer": ("context=64", "sequences=4", "micro=1"),
    }
    for name, changes in ways.items():
        settings = [word for text in (*fresh, *changes) for word in ("-s", text)]
        start = ("launch", "-p", "nano", "--name", f"docs-{name}", "--init-from", workspace.out / "run", *settings)
        run = workspace.find(workspace.run(*start).stdout.strip())
        run.wait_end()
        assert [step["lr"] for step in run.kind("step")] == pytest.approx([5e-4, 1e-3, 5e-4, 0])
        assert run.losses()[1] < reference.losses()[1] / 2
        assert {step["tokens"] for step in run.kind("step")} == {256, 512, 768, 1024}


def test_training_in_the_foreground_gives_the_same_weights(workspace: Workspace, reference: Run) -> None:
    out = workspace.train()
    assert out.startswith("data: 624 sequences of 33 tokens; 240 steps read 3.1 epochs; 31 of 20,000 tokens unused\n")
    assert f"step {STEPS}/{STEPS}" in out
    assert (workspace.out / "run" / f"ckpt_step_{STEPS}" / "model.safetensors").read_bytes() == reference.weights()
    assert not (workspace.home / "runs").exists()


def test_ls_status_and_logs(reference: Run) -> None:
    workspace = reference.workspace
    status = reference.status()
    listed = json.loads(workspace.run("ls", "--json").stdout)
    assert {key: value for key, value in status.items() if key != "evals"} in listed
    assert reference.id in workspace.run("ls").stdout
    assert status["steps"] == status["step"] == STEPS
    for text in ("run", reference.id, reference.id[2:]):
        assert json.loads(workspace.run("status", text, "--json").stdout) == status
    assert f"{STEPS}" in workspace.run("status", reference.id).stdout
    workspace.run("logs", reference.id)
    assert "no such run" in workspace.run("status", "nothing-like-it", code=1).stderr
    assert "the app needs a terminal" in workspace.run("attach", reference.id, code=1).stderr


@pytest.mark.faults  # tests/unit/runs/test_store.py has two processes that create runs in the same second
def test_two_launches_in_the_same_second_are_two_runs(workspace: Workspace) -> None:
    """With --queue, because the first may already use the device when the second starts."""
    first, second = (workspace.start("launch", "-p", "nano", "--queue", "-s", "steps=2") for _ in range(2))
    outputs = [process.communicate(timeout=90) for process in (first, second)]
    ids = {out.strip() for out, _ in outputs}
    assert len(ids) == 2 and "" not in ids, outputs
    for id in ids:
        workspace.run("watch", id)
    assert {summary["phase"] for summary in json.loads(workspace.run("ls", "--json").stdout)} == {"finished"}
