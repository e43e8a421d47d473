"""Builds the commands that start the ranks of a run, and checks that the other hosts can be reached.

A single rank is started directly. Several are started by torchrun, by DeepSpeed's runner or, inside an allocation, by
Slurm; the rendezvous is left to those. The run's directory is on the machine of rank 0, whose supervisor starts the
launcher and restarts it when a rank dies. On the other machines the user (or Slurm) runs ``worker_commands``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import shutil
import socket
from pathlib import Path

from engine.host.private_dirs import private_opener
from engine.host.programs import SAFE_PATH, TRAINER, python_module
from profiles.errors import ForceNeeded, UserError
from profiles.names import slug
from profiles.spec import RunSpec

CONNECT_TIMEOUT = 4.0  # seconds; the kernel takes about three to find that there is no host of that address
SSH_PORT = 22
_NODE = "$SLURM_NODEID"  # each node's shell puts its number in

_ENV = "env " + " ".join(f"{name}={value}" for name, value in SAFE_PATH.items())


def launcher_of(spec: RunSpec) -> str | None:
    """Return torchrun, deepspeed or slurm; None for a single rank, which needs no launcher."""
    if spec.ranks == 1 and spec.launch.launcher in ("auto", "torchrun"):
        return None
    return "torchrun" if spec.launch.launcher == "auto" else spec.launch.launcher


def trainer_command(spec: RunSpec, run: Path, attempt: int) -> list[str]:
    """Return the command that starts the trainer of the run in ``run``: rank 0 and, through a launcher, the others."""
    # Not --run: torchrun would read it as an abbreviation of its own --run-path.
    target = ["-m", TRAINER, "--run-dir", str(run), "--attempt", str(attempt)]
    match launcher_of(spec):
        case None:
            return python_module(TRAINER, *target[2:])
        case "torchrun":
            return [*_torchrun(spec, "0", _first_host(spec)), *target]
        case "deepspeed":
            return [*_deepspeed(spec, run / "hostfile"), *target[1:]]
        case _:
            # Each node runs its own torchrun; the first node of the allocation, this one, is node 0.
            torchrun = _torchrun(spec, _NODE, socket.gethostname())
            words = [word if word == _NODE else shlex.quote(word) for word in (*torchrun, *target)]
            each = [f"--nodes={spec.launch.nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]
            return ["srun", *each, "bash", "-c", f"exec {_ENV} " + " ".join(words)]


def write_hostfile(spec: RunSpec, run: Path) -> None:
    """Write the file that DeepSpeed's runner reads into the run's directory; nothing for other launchers."""
    if launcher_of(spec) == "deepspeed":
        with open(run / "hostfile", "w", opener=private_opener) as file:
            file.write(hostfile(spec))


def hostfile(spec: RunSpec) -> str:
    """Return DeepSpeed's list of hosts with the ranks of each."""
    return "".join(f"{host} slots={spec.launch.gpus_per_node}\n" for host in hosts(spec) or ["localhost"])


def worker_commands(spec: RunSpec) -> dict[str, str]:
    """Return host → the shell line to run there. Like the first host, it restarts its ranks when one has died."""
    if launcher_of(spec) != "torchrun":
        return {}
    lines = {}
    for number, host in enumerate(hosts(spec)[1:], start=1):
        command = [*_torchrun(spec, str(number), _first_host(spec)), "-m", TRAINER, "--worker"]
        lines[host] = f"until {_ENV} {shlex.join(command)}; do sleep 2; done"
    return lines


def batch_script(spec: RunSpec, launch: str) -> str:
    """Return a script for ``sbatch``; ``launch`` is the ``mla-tui launch …`` to run inside the allocation."""
    # No quoting is the same for a shell and for sbatch, which reads the comments itself and puts ids in place of %.
    name = slug(spec.profile)
    return f"""#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --nodes={spec.launch.nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node={spec.launch.gpus_per_node}
#SBATCH --output={name}-%j.out
# The run is on the first node: attach to it there. The allocation lasts as long as the run.
set -euo pipefail
run=$({launch})
mla-tui watch "$run"
"""


def hosts(spec: RunSpec) -> list[str]:
    return [host.strip() for host in spec.launch.hosts.split(",") if host.strip()]


def check_launcher(spec: RunSpec) -> None:
    """Raise ``UserError`` where this host cannot start the ranks of ``spec``; ``check_hosts`` is about the others."""
    launcher, names = launcher_of(spec), hosts(spec)
    if launcher is None:
        return
    if launcher == "slurm":
        if "SLURM_JOB_ID" not in os.environ:
            raise UserError(
                "launch.launcher: slurm: this is not inside an allocation; write the batch script with"
                " mla-tui launch … --dry-run > run.sbatch, then: sbatch run.sbatch"
            )
        _require("srun", "launch.launcher: slurm")
        return
    if spec.launch.nodes == 1:
        return
    if len(names) != spec.launch.nodes:
        raise UserError(
            f"launch.hosts: names {len(names)} hosts, launch.nodes is {spec.launch.nodes};"
            " name each one, this one first: -s launch.hosts=this,that"
        )
    _check_first(names[0], spec.launch.port)
    if launcher == "deepspeed":
        _require("pdsh", "launch.launcher: deepspeed, which starts the ranks of other hosts with it")


def check_hosts(spec: RunSpec) -> None:
    """Raise ``ForceNeeded`` where another host of ``spec`` does not answer; Slurm knows its hosts itself."""
    launcher = launcher_of(spec)
    if launcher in ("torchrun", "deepspeed"):
        for host in hosts(spec)[1:]:
            _check_answers(host, by_ssh=launcher == "deepspeed")


def _torchrun(spec: RunSpec, node: str, first_host: str) -> list[str]:
    launch = spec.launch
    command = python_module("torch.distributed.run", f"--nproc-per-node={launch.gpus_per_node}")
    if launch.nodes == 1:
        return [*command, "--standalone"]
    rendezvous = [f"--master-addr={first_host}", f"--master-port={launch.port}"]
    return [*command, f"--nnodes={launch.nodes}", "--node-rank", node, *rendezvous]


def _deepspeed(spec: RunSpec, hostfile: Path) -> list[str]:
    command = python_module("deepspeed.launcher.runner", "--no_local_rank")
    if spec.launch.nodes == 1:
        return [*command, f"--num_gpus={spec.launch.gpus_per_node}", "--module"]
    rendezvous = [f"--master_addr={_first_host(spec)}", f"--master_port={spec.launch.port}"]
    return [*command, f"--hostfile={hostfile}", *rendezvous, "--module"]


def _first_host(spec: RunSpec) -> str:
    return (hosts(spec) or ["localhost"])[0]


def _check_first(host: str, port: int) -> None:
    """Raise ``UserError`` where ``host`` is not this machine or ``port`` is in use on it."""
    address = _resolve(host)
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise UserError(
                    f"launch.port: {port} is in use on {host}; use another one: -s launch.port={port + 1}"
                ) from None
            raise UserError(
                f"launch.hosts: {host} is not this machine, and the first host must be;"
                " launch there, or name this one first"
            ) from None


def _check_answers(host: str, *, by_ssh: bool) -> None:
    """Raise ``ForceNeeded`` where nothing shows that ``host`` is up.

    A connection or a refusal on the ssh port shows it. With ``by_ssh`` a refusal is not enough, because the launcher
    starts the ranks there by ssh. No answer decides nothing: the host may be off, or a firewall drops the connection.
    """
    address = _resolve(host)
    try:
        with socket.create_connection((address, SSH_PORT), timeout=CONNECT_TIMEOUT):
            return
    except ConnectionRefusedError:
        if not by_ssh:
            return
        why = "it refuses ssh connections"
    except TimeoutError:
        why = f"no answer on the ssh port within {CONNECT_TIMEOUT:g} s"
    except OSError as error:
        why = error.strerror or str(error)
    raise ForceNeeded(f"launch.hosts: {host} cannot be reached: {why}; check that it is up and that the name is right")


def _resolve(host: str) -> str:
    with contextlib.suppress(OSError, UnicodeError):
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    raise UserError(f"launch.hosts: {host} is not a known host; write its address, or its name as in /etc/hosts")


def _require(program: str, setting: str) -> None:
    if shutil.which(program) is None:
        raise UserError(f"{setting}: {program} is not installed")
