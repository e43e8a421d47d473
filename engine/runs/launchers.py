"""The exact commands that start the ranks of a run, and what must be so before they can meet.

One rank is started as it is. Several are started by torchrun, by DeepSpeed's runner or, inside an allocation, by Slurm;
how ranks find each other is left to those. The machine of rank 0 holds the run: its supervisor starts the launcher and,
when a rank dies, starts it again. On the other machines a person (or Slurm) runs what ``other_hosts`` gives.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import shutil
import socket
import sys
from pathlib import Path

from engine.host.private_dirs import private_opener
from engine.host.programs import TRAINER
from profiles.errors import UserError
from profiles.spec import RunSpec

REACH_SECONDS = 4.0  # the kernel needs three to give a host up that answers no ARP
SSH_PORT = 22


def launcher_of(spec: RunSpec) -> str | None:
    """torchrun, deepspeed or slurm; None for a single rank, which needs none."""
    if spec.ranks == 1 and spec.launch.launcher in ("auto", "torchrun"):
        return None
    return "torchrun" if spec.launch.launcher == "auto" else spec.launch.launcher


def trainer_command(spec: RunSpec, run: Path, attempt: int) -> list[str]:
    """What the supervisor of the run in ``run`` runs: rank 0 and, by way of a launcher, the others."""
    target = ["-m", TRAINER, "--run", str(run), "--attempt", str(attempt)]
    match launcher_of(spec):
        case None:
            return [sys.executable, *target]
        case "torchrun":
            return [*_torchrun(spec, "0", _first_host(spec)), *target]
        case "deepspeed":
            return [*_deepspeed(spec, run / "hostfile"), *target[1:]]
        case _:
            # Each machine's share of the run; the allocation's first machine, on which we are, is number 0.
            torchrun = _torchrun(spec, "$SLURM_NODEID", socket.gethostname())
            words = [word if word.startswith("$") else shlex.quote(word) for word in (*torchrun, *target)]
            each = [f"--nodes={spec.launch.nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]
            return ["srun", *each, "bash", "-c", "exec " + " ".join(words)]


def prepare(spec: RunSpec, run: Path) -> None:
    """Write beside the run what its launcher reads."""
    if launcher_of(spec) == "deepspeed":
        with open(run / "hostfile", "w", opener=private_opener) as file:
            file.write(hostfile(spec))


def hostfile(spec: RunSpec) -> str:
    """DeepSpeed's list of machines, with the ranks of each."""
    return "".join(f"{host} slots={spec.launch.gpus_per_node}\n" for host in hosts(spec) or ["localhost"])


def other_hosts(spec: RunSpec) -> dict[str, str]:
    """By host: the shell line to run there. It begins again when a rank has died, as the first host does."""
    if launcher_of(spec) != "torchrun":
        return {}
    lines = {}
    for number, host in enumerate(hosts(spec)[1:], start=1):
        command = [*_torchrun(spec, str(number), _first_host(spec)), "-m", TRAINER, "--worker"]
        lines[host] = f"until {shlex.join(command)}; do sleep 2; done"
    return lines


def batch_script(spec: RunSpec, launch: str) -> str:
    """What to hand to ``sbatch``; ``launch`` is the ``mla-tui launch …`` that starts the run inside the allocation."""
    return f"""#!/bin/bash
#SBATCH --job-name={spec.profile}
#SBATCH --nodes={spec.launch.nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node={spec.launch.gpus_per_node}
#SBATCH --output={spec.profile}-%j.out
# The first machine holds the run: attach to it there. The allocation lasts as long as the run does.
set -euo pipefail
run=$({launch})
mla-tui watch "$run"
"""


def hosts(spec: RunSpec) -> list[str]:
    return [host.strip() for host in spec.launch.hosts.split(",") if host.strip()]


def check_launcher(spec: RunSpec) -> None:
    """Whether the ranks of ``spec`` can be started from here. Raises ``UserError``."""
    launcher, named = launcher_of(spec), hosts(spec)
    if launcher is None:
        return
    if launcher == "slurm":
        if "SLURM_JOB_ID" not in os.environ:
            raise UserError(
                "launch.launcher: slurm: this is not inside an allocation; write the batch script with"
                " mla-tui launch … --dry-run > run.sbatch, then: sbatch run.sbatch"
            )
        _need("srun", "launch.launcher: slurm")
        return
    if spec.launch.nodes == 1:
        return
    if len(named) != spec.launch.nodes:
        raise UserError(
            f"launch.hosts: names {len(named)} machines, launch.nodes is {spec.launch.nodes};"
            " name each, this one first: -s launch.hosts=this,that"
        )
    _check_first(named[0], spec.launch.port)
    for host in named[1:]:
        _check_reachable(host, by_ssh=launcher == "deepspeed")
    if launcher == "deepspeed":
        _need("pdsh", "launch.launcher: deepspeed, which starts the ranks of other machines with it")


def _torchrun(spec: RunSpec, node: str, first_host: str) -> list[str]:
    launch = spec.launch
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={launch.gpus_per_node}"]
    if launch.nodes == 1:
        return [*command, "--standalone"]
    meeting = [f"--master-addr={first_host}", f"--master-port={launch.port}"]
    return [*command, f"--nnodes={launch.nodes}", "--node-rank", node, *meeting]


def _deepspeed(spec: RunSpec, listed: Path) -> list[str]:
    command = [sys.executable, "-m", "deepspeed.launcher.runner", "--no_local_rank"]
    if spec.launch.nodes == 1:
        return [*command, f"--num_gpus={spec.launch.gpus_per_node}", "--module"]
    meeting = [f"--master_addr={_first_host(spec)}", f"--master_port={spec.launch.port}"]
    return [*command, f"--hostfile={listed}", *meeting, "--module"]


def _first_host(spec: RunSpec) -> str:
    return (hosts(spec) or ["localhost"])[0]


def _check_first(host: str, port: int) -> None:
    """Whether ``host`` is this machine and ``port`` is free on it."""
    address = _resolve(host)
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise UserError(
                    f"launch.port: {port} is taken on {host}; use another: -s launch.port={port + 1}"
                ) from None
            raise UserError(
                f"launch.hosts: {host} is not this machine, and the first one holds the run;"
                " launch there, or name this one first"
            ) from None


def _check_reachable(host: str, *, by_ssh: bool) -> None:
    """Whether ``host`` is there at all; what it lets in is another matter, except for ssh where that is needed."""
    address = _resolve(host)
    try:
        with socket.create_connection((address, SSH_PORT), timeout=REACH_SECONDS):
            return
    except ConnectionRefusedError:
        if not by_ssh:
            return
        why = "has no ssh"
    except TimeoutError:
        if not by_ssh:
            return  # a firewall answers nothing either
        why = "does not answer ssh"
    except OSError as error:
        why = f"cannot be reached: {error.strerror}"
    raise UserError(f"launch.hosts: {host} {why}; see that it is up and named rightly")


def _resolve(host: str) -> str:
    with contextlib.suppress(OSError, UnicodeError):
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    raise UserError(f"launch.hosts: {host} is no known machine; write its address, or its name as in /etc/hosts")


def _need(program: str, whose: str) -> None:
    if shutil.which(program) is None:
        raise UserError(f"{whose}: {program} is not installed")
