"""Runs of several ranks, and train.py started directly by torchrun and deepspeed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.conftest import Run, WaitFor, Workspace

REPOSITORY = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
TWO = ("-s", "gpus_per_node=2")
LONG = pytest.mark.faults  # for their length: half a minute each


@pytest.mark.parametrize("backend", ["torch", pytest.param("deepspeed", marks=LONG)])
def test_two_ranks_are_edited_and_one_of_them_killed(workspace: Workspace, reference: Run, backend: str) -> None:
    run = workspace.launch(*TWO, "--backend", backend, "-s", "stop_step=120")
    run.wait_step(10)
    workspace.run("set", run.id, "micro=1")
    (edit,) = run.kind("edit")
    run.wait_step(45)
    (second,) = [p for p in workspace.processes() if p.environ().get("RANK") == "1"]
    os.kill(second.pid, signal.SIGKILL)
    run.wait_end("stopped")

    of_both = run.kind("ranks")[0]
    assert [len(of_both[name]) for name in ("memory", "tok_s", "data_s")] == [2, 2, 2]
    assert min(of_both["memory"]) > 10e6 and min(of_both["tok_s"]) > 0 and of_both["step"] == 1
    first, again = (r["resumed_from"] for r in run.kind("start"))
    assert first is None and again >= 40
    (why,) = [r["why"] for r in run.kind("exit") if r["code"]]
    assert "another rank has died" in why
    assert {r["micro"] for r in run.kind("step") if r["step"] > edit["step"]} == {1}
    plain, found = reference.losses(), run.losses()
    assert sorted(found) == list(range(1, 121))
    for step in range(1, 41):
        assert found[step] == pytest.approx(plain[step], rel=1e-5)
    assert found[120] == pytest.approx(plain[120], rel=0.02)


@pytest.mark.faults
def test_a_run_started_by_deepspeeds_runner(workspace: Workspace, reference: Run) -> None:
    run = workspace.launch(*TWO, "--backend", "deepspeed", "-s", "launcher=deepspeed", "-s", "steps=20")
    run.wait_step(3)
    assert sum("deepspeed.launcher.launch" in p.cmdline() for p in workspace.processes()) == 1
    assert {p.environ().get("RANK") for p in workspace.processes()} >= {"0", "1"}
    run.wait_end()
    plain, found = reference.losses(), run.losses()
    assert found == pytest.approx({step: plain[step] for step in range(1, 21)}, rel=1e-5)


@LONG
def test_a_run_resumes_with_another_number_of_ranks(workspace: Workspace, reference: Run) -> None:
    run = workspace.launch("--backend", "deepspeed", *TWO, name="two")
    run.wait_step(30)
    workspace.run("stop", run.id)
    stopped = run.wait_end("stopped")
    other = workspace.launch(
        "--resume", stopped["checkpoint"], "--backend", "torch", "-s", "gpus_per_node=1", name="one"
    )
    other.wait_end()
    plain, found = reference.losses(), other.losses()
    for step in range(stopped["step"] + 1, stopped["step"] + 21):
        assert found[step] == pytest.approx(plain[step], rel=1e-3)


def test_a_run_can_be_stopped_before_its_ranks_have_connected(workspace: Workspace, wait_for: WaitFor) -> None:
    run = workspace.launch("-s", "nodes=2", "-s", "hosts=localhost,127.0.0.2", "-s", f"port={free_port()}")
    wait_for("the launcher", lambda: [p for p in workspace.processes() if "torch.distributed.run" in p.cmdline()])
    workspace.run("stop", run.id)
    run.wait_end("stopped")
    wait_for("the end of all processes", lambda: not workspace.processes())


# -- train.py by its own commands, in a folder of its own


class Folder:
    """A folder in which commands are run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self.env |= {"PATH": f"{BIN}:{os.environ['PATH']}", "MLA_TUI_HOME": str(folder / "home")}

    def __call__(self, command: str, code: int = 0) -> str:
        """Run a command in the folder to its end and return what it printed."""
        done = subprocess.run(
            command.split(),
            cwd=self.folder,
            env=self.env,
            text=True,
            capture_output=True,
            timeout=240,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def seed(tmp_path: Path) -> Folder:
    """A folder with ``train.py`` and headerless shards."""
    for split, tokens in (("train", 40_000), ("val", 10_000)):
        path = tmp_path / "data" / "shards" / "phase1" / split / f"phase1-{split}-000.bin"
        path.parent.mkdir(parents=True)
        np.cumsum(np.random.default_rng(1).integers(0, 4, tokens) % 4096).astype("<u2").clip(0, 4095).tofile(path)
    (tmp_path / "train.py").symlink_to(REPOSITORY / "train.py")
    return Folder(tmp_path)


def test_the_deepspeed_command_of_the_readme(seed: Folder) -> None:
    out = seed("deepspeed --num_gpus=1 train.py --backend deepspeed -s steps=2 -s val_every=0")
    assert "checkpoint at step 2" in out and (seed.folder / "models" / "ckpt_step_2").is_dir()


@LONG
def test_the_deepspeed_command_resumes(seed: Folder) -> None:
    seed("deepspeed --num_gpus=1 train.py --backend deepspeed -s steps=2 -s val_every=0")
    out = seed("deepspeed --num_gpus=1 train.py --backend deepspeed --resume models/ckpt_step_2 -s steps=4")
    assert "from the checkpoint at step 2" in out and "step 4/4" in out
    out = seed("deepspeed --num_gpus=1 train.py --backend deepspeed --resume models/ckpt_step_5000", code=1)
    assert "models/ckpt_step_5000: no such checkpoint" in out and "Traceback" not in out


@LONG
def test_the_torchrun_command_of_the_readme(seed: Folder) -> None:
    out = seed("torchrun --nproc-per-node=2 train.py --backend deepspeed -s steps=2 -s val_every=0")
    assert out.count("step 2/2") == 1  # only one rank prints
    out = seed("torchrun --nproc-per-node=2 train.py --backend deepspeed --resume latest -s steps=4 -s val_every=0")
    assert "from the checkpoint at step 2" in out and "step 4/4" in out


def test_a_mistake_is_reported_by_one_rank(seed: Folder) -> None:
    out = seed("torchrun --nproc-per-node=2 train.py --backend torch -s context=1000000", code=1)
    assert out.count("mla-tui: ") == 1 and "is longer than a shard" in out


@LONG
def test_ranks_that_do_not_divide_a_step_are_refused(seed: Folder) -> None:
    out = seed("torchrun --nproc-per-node=3 train.py", code=1)
    assert "3 ranks do not divide the 8 sequences of a step" in out


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
