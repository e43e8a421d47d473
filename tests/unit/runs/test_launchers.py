"""The commands that start the ranks of a run, as text; tests/e2e/test_ranks.py and test_two_hosts.py run them."""

from __future__ import annotations

import contextlib
import shlex
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from engine.runs import launchers
from engine.runs.launchers import (
    batch_script,
    check_hosts,
    check_launcher,
    hostfile,
    launcher_of,
    trainer_command,
    worker_commands,
)
from profiles.errors import ForceNeeded, UserError
from profiles.registry import load
from profiles.spec import RunSpec

RUN = Path("/home/me/runs/20261124-run")
TARGET = f"engine.train --run-dir {RUN} --attempt 2"


def spec(*more: str) -> RunSpec:
    return load("cpu_demo", ["micro=1", *(f"launch.{key}" for key in more)])


def command(*more: str) -> str:
    return shlex.join(trainer_command(spec(*more), RUN, 2)).partition(" ")[2]  # without the interpreter's path


def test_one_rank_needs_no_launcher() -> None:
    assert launcher_of(spec()) is None
    assert command() == f"-P -m {TARGET}"


def test_one_machine() -> None:
    assert command("gpus_per_node=4") == f"-P -m torch.distributed.run --nproc-per-node=4 --standalone -m {TARGET}"
    deepspeed = command("gpus_per_node=4", "launcher=deepspeed")
    assert deepspeed == f"-P -m deepspeed.launcher.runner --no_local_rank --num_gpus=4 --module {TARGET}"


def test_torchrun_leaves_the_trainers_options_alone() -> None:
    """Its argparse also abbreviates: it would take an option of ours that begins like one of its own."""
    from torch.distributed.run import parse_args

    torchrun = trainer_command(spec("gpus_per_node=2"), RUN, 2)[4:]
    args = parse_args(torchrun)
    assert (args.training_script, args.training_script_args) == (
        "engine.train",
        ["--run-dir", str(RUN), "--attempt", "2"],
    )


def test_several_machines() -> None:
    two = ("nodes=2", "gpus_per_node=2", "hosts=alpha, beta", "port=1234")
    meeting = "--master-addr=alpha --master-port=1234"
    assert command(*two) == (
        f"-P -m torch.distributed.run --nproc-per-node=2 --nnodes=2 --node-rank 0 {meeting} -m {TARGET}"
    )
    ((host, line),) = worker_commands(spec(*two)).items()
    assert host == "beta"
    assert f"--nnodes=2 --node-rank 1 {meeting} -m engine.train --worker; do sleep 2; done" in line
    assert subprocess.run(["bash", "-n", "-c", line]).returncode == 0


def test_deepspeed_on_several_machines() -> None:
    two = spec("nodes=2", "gpus_per_node=2", "hosts=alpha,beta", "launcher=deepspeed")
    assert hostfile(two) == "alpha slots=2\nbeta slots=2\n"
    assert f"--hostfile={RUN}/hostfile --master_addr=alpha --master_port=29500 --module engine.train" in shlex.join(
        trainer_command(two, RUN, 1)
    )
    assert worker_commands(two) == {}  # its runner starts them


def test_slurm(tmp_path: Path) -> None:
    two = spec("nodes=2", "gpus_per_node=4", "launcher=slurm")
    script = batch_script(two, "mla-tui launch -p cpu_demo")
    assert {
        "#SBATCH --job-name=cpu_demo",
        "#SBATCH --nodes=2",
        "#SBATCH --gpus-per-node=4",
        "#SBATCH --ntasks-per-node=1",
    } <= set(script.splitlines())
    (tmp_path / "run.sbatch").write_text(script)
    assert subprocess.run(["bash", "-n", str(tmp_path / "run.sbatch")]).returncode == 0
    *srun, line = trainer_command(two, RUN, 1)
    assert srun == ["srun", "--nodes=2", "--ntasks-per-node=1", "--kill-on-bad-exit=1", "bash", "-c"]
    # Each machine's shell puts its own number in.
    shown = subprocess.run(
        ["bash", "-c", line.replace("exec ", "echo ", 1)], env={"SLURM_NODEID": "1"}, capture_output=True, text=True
    )
    assert f"--node-rank 1 --master-addr={socket.gethostname()}" in shown.stdout


def test_a_name_in_the_batch_script_is_one_word() -> None:
    usual = spec("nodes=2", "launcher=slurm")
    hostile = replace(usual, profile="x\necho INJECTED $(id)\n# %x größe")
    script = batch_script(hostile, "mla-tui launch")
    assert script == batch_script(usual, "mla-tui launch").replace("cpu_demo", "x-echo-INJECTED-id-x-größe")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["nodes=2"], r"launch\.hosts: names 0 hosts, launch\.nodes is 2; name each"),
        (["nodes=2", "hosts=localhost"], r"launch\.hosts: names 1 hosts"),
        (["nodes=2", "hosts=no-such-machine.invalid,b"], r"no-such-machine\.invalid is not a known host"),
        (
            ["nodes=2", "hosts=192.0.2.1,localhost"],
            r"192\.0\.2\.1 is not this machine, and the first host",
        ),
        (["nodes=2", "launcher=slurm"], r"slurm: this is not inside an allocation; .*--dry-run > run\.sbatch"),
    ],
)
def test_what_cannot_be_started_from_here(more: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(UserError, match=said):
        check_launcher(spec(*more))


def test_a_taken_port_is_named_with_another() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"launch\.port: {port} is in use on 127\.0\.0\.1; .*port={port + 1}"):
            check_launcher(spec("nodes=2", "hosts=127.0.0.1,127.0.0.2", f"port={port}"))


def test_a_host_that_does_not_answer_is_not_taken_for_one_that_does(monkeypatch: pytest.MonkeyPatch) -> None:
    two = spec("nodes=2", "hosts=127.0.0.1,127.0.0.1")
    with socket.socket() as host, contextlib.ExitStack() as stack:
        host.bind(("127.0.0.1", 0))
        monkeypatch.setattr(launchers, "SSH_PORT", host.getsockname()[1])
        check_hosts(two)  # it refuses the connection, so it is up
        with pytest.raises(ForceNeeded, match="it refuses ssh connections"):
            check_hosts(spec("nodes=2", "hosts=127.0.0.1,127.0.0.1", "launcher=deepspeed"))
        host.listen(0)
        check_hosts(two)
        monkeypatch.setattr(launchers, "CONNECT_TIMEOUT", 0.2)
        for _ in range(4):  # the kernel drops connections that no one accepts, as a firewall does
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(host.getsockname())
        with pytest.raises(
            ForceNeeded, match=r"127\.0\.0\.1 cannot be reached: no answer on the ssh port within 0\.2 s"
        ):
            check_hosts(two)
