"""A run on two hosts: network namespaces of this machine, joined by a virtual cable."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.conftest import DEADLINE, Run, WaitFor, Workspace

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None or subprocess.run(["ip", "netns", "list"]).returncode != 0,
    reason="network namespaces need root and iproute2",
)
ADDRESSES = ("10.77.0.1", "10.77.0.2")
HOSTS = ("-s", "nodes=2", "-s", f"hosts={','.join(ADDRESSES)}", "--backend", "torch")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@pytest.fixture
def two_hosts() -> Iterator[list[str]]:
    """The names of two namespaces that reach only each other."""
    names = [f"mla-{os.getpid()}-{number}" for number in (1, 2)]
    ends = [f"v{number}" for number in (1, 2)]
    for name in names:
        ip("netns", "add", name)
    try:
        ip("link", "add", ends[0], "netns", names[0], "type", "veth", "peer", "name", ends[1], "netns", names[1])
        for name, end, address in zip(names, ends, ADDRESSES, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", end)
            for device in (end, "lo"):
                ip("-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            ip("netns", "del", name)


@pytest.fixture
def on_two_hosts(workspace: Workspace, two_hosts: list[str]) -> Iterator[Callable[..., Run]]:
    """Launches a run on the first host and, by the line that --dry-run prints, on the second."""
    first, second = two_hosts
    mla_tui = ["ip", "netns", "exec", first, str(workspace.command)]
    workers = []

    def command(*args: str) -> str:
        done = subprocess.run(
            [*mla_tui, *args], env=workspace.env, cwd=workspace.root, text=True, capture_output=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def launch(*args: str) -> Run:
        lines = command("launch", "-p", "nano", *HOSTS, *args, "--dry-run").splitlines()
        line = lines[lines.index(f"# on {ADDRESSES[1]}: start it yourself") + 1]
        run = workspace.find(command("launch", "-p", "nano", *HOSTS, *args).strip())
        with open(workspace.root / "second.log", "w") as log:
            worker = ["ip", "netns", "exec", second, "bash", "-c", line]
            workers.append(
                subprocess.Popen(
                    worker, env=workspace.env, cwd=workspace.root, stdout=log, stderr=log, start_new_session=True
                )
            )
        return run

    yield launch
    workspace.close()
    for worker in workers:
        worker.wait(timeout=30)


def test_the_losses_are_those_of_one_host(
    on_two_hosts: Callable[..., Run], reference: Run, wait_for: WaitFor, workspace: Workspace
) -> None:
    run = on_two_hosts("-s", "steps=20")
    run.wait_end()
    plain, found = reference.losses(), run.losses()
    assert len(found) == 20
    # Only the end of the schedule differs: the first 20 steps are all warm-up.
    assert found == pytest.approx({step: plain[step] for step in found}, rel=1e-5)
    wait_for("the end of the second host's ranks", lambda: not workspace.processes())


@pytest.mark.faults  # for its length
def test_after_a_host_died_the_run_restarts_from_the_last_checkpoint(
    on_two_hosts: Callable[..., Run], reference: Run, workspace: Workspace
) -> None:
    run = on_two_hosts()
    run.wait_step(45)
    (rank,) = [p for p in workspace.processes() if "--worker" in p.cmdline() and p.environ().get("RANK") == "1"]
    os.kill(rank.pid, signal.SIGKILL)
    run.wait_end()
    first, again = (record["resumed_from"] for record in run.kind("start"))
    assert first is None and again >= 40
    assert any("another rank has died" in record["why"] for record in run.kind("exit"))
    plain, found = reference.losses(), run.losses()
    assert found.keys() == plain.keys()
    for step in range(1, 41):
        assert found[step] == pytest.approx(plain[step], rel=1e-5)


def pull_the_cable(hosts: list[str], pulled: bool) -> None:
    ip("-n", hosts[1], "link", "set", "v2", "down" if pulled else "up")


def drop_packets(hosts: list[str], dropped: bool) -> None:
    """Send every packet to an address of the cable that no one has: neither kernel learns that it is lost."""
    for number, host in enumerate(hosts):
        neighbour = (ADDRESSES[1 - number], "dev", f"v{number + 1}")
        if dropped:
            ip("-n", host, "neigh", "replace", *neighbour, "lladdr", "02:00:00:00:00:99", "nud", "permanent")
        else:
            ip("-n", host, "neigh", "del", *neighbour)


@pytest.mark.faults
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fail", [pull_the_cable, drop_packets])
def test_after_a_network_failure_the_run_restarts(
    on_two_hosts: Callable[..., Run],
    two_hosts: list[str],
    workspace: Workspace,
    wait_for: WaitFor,
    fail: Callable[[list[str], bool], None],
) -> None:
    run = on_two_hosts()
    run.wait_step(45)
    (other,) = (
        one for one in workspace.processes() if "--worker" in one.cmdline() and one.environ().get("RANK") == "1"
    )
    fail(two_hosts, True)
    wait_for("an end of the first host's rank", lambda: any(r["code"] for r in run.kind("exit")))
    wait_for("an end of the second host's rank", lambda: not other.is_running())
    fail(two_hosts, False)
    run.wait_end(timeout=2 * DEADLINE)  # two hosts start on the cores of one
    first, again = (record["resumed_from"] for record in run.kind("start"))
    assert first is None and again >= 40
    assert max(run.losses()) == 240


def test_an_unreachable_host_is_named(workspace: Workspace, two_hosts: list[str]) -> None:
    arguments = ["launch", "-p", "nano", "-s", "nodes=2", "-s", "hosts=10.77.0.1,10.77.0.9"]
    for hosts, message in (
        ("10.77.0.1,10.77.0.9", "launch.hosts: 10.77.0.9 cannot be reached"),
        ("10.77.0.2,10.77.0.1", "launch.hosts: 10.77.0.2 is not this machine"),
        ("10.77.0.1,no-such-machine.invalid", "no-such-machine.invalid is not a known host"),
    ):
        arguments[-1] = f"hosts={hosts}"
        done = subprocess.run(
            ["ip", "netns", "exec", two_hosts[0], str(workspace.command), *arguments],
            env=workspace.env,
            cwd=workspace.root,
            text=True,
            capture_output=True,
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert len(done.stderr.splitlines()) == 1 and message in done.stderr
        assert not (workspace.home / "runs").exists()


def test_a_port_in_use_is_named(workspace: Workspace, two_hosts: list[str]) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        workspace.assert_refused(
            *("launch", "-p", "nano", "-s", "nodes=2", "-s", "hosts=127.0.0.1,127.0.0.2", "-s", f"port={port}"),
            code=1,
            message=f"launch.port: {port} is in use on 127.0.0.1; use another",
        )
