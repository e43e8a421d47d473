"""An active run whose log socket is attacked, overloaded, deleted or not answered; the run is unaffected."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path

import pytest

from engine.events import wire
from tests.documented import ROOT
from tests.e2e.attack import Attacker, fuzz
from tests.e2e.conftest import MakeWorkspace, Run, WaitFor, output

STEPS = 100_000


@pytest.fixture(scope="module")
def run(make_workspace: MakeWorkspace) -> Run:
    """One run for all of these tests; each leaves it healthy."""
    run = make_workspace().launch("-s", f"steps={STEPS}", "-s", "val_every=0", "-s", "save_every=20")
    run.wait_step(25)
    return run


def rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def assert_healthy(run: Run, pid: int) -> None:
    """Assert that the same supervisor answers and that a client receives new records."""
    assert run.pid("supervisor") == pid
    client = Attacker(run.run_dir.socket_path)
    at = client.hello()["at"]
    client.send(json.dumps({"id": 1, "method": "subscribe", "params": {"from": at}}).encode() + b"\n")
    while json.loads(client.line()).get("params", {}).get("kind") != "step":
        pass
    client.close()


def flood(run: Run, count: int) -> None:
    pid, seed = run.pid("supervisor"), random.SystemRandom().randrange(1 << 32)
    fuzz(run.run_dir.socket_path, 200, random.Random(seed))  # allocates what only the first requests need
    before, attempt = rss(pid), run.status()["attempt"]
    print(f"seed {seed}, supervisor {before / 1e6:.1f} MB before")
    fuzz(run.run_dir.socket_path, count, random.Random(seed))
    print(f"{rss(pid) / 1e6:.1f} MB after {count} requests")
    assert_healthy(run, pid)
    assert rss(pid) < before + (16 << 20), f"seed {seed}"
    assert run.status()["attempt"] == attempt


def test_fuzzed_requests_do_no_harm(run: Run) -> None:
    flood(run, 2000)


@pytest.mark.faults
@pytest.mark.timeout(1200)
def test_a_hundred_thousand_fuzzed_requests_do_no_harm(run: Run) -> None:
    flood(run, 100_000)


def test_at_the_limit_of_open_files_the_run_is_still_supervised(run: Run, wait_for: WaitFor) -> None:
    pid = run.pid("supervisor")
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (64, hard))
    clients: list[Attacker] = []
    refused: list[Attacker] = []
    for _ in range(90):
        client = Attacker(run.run_dir.socket_path)
        with contextlib.suppress(BrokenPipeError):
            client.send(b'{"id":1,"method":"subscribe"}\n')
        answer = json.loads(client.line())
        (refused if answer.get("error") else clients).append(client)
    assert 2 <= len(clients) <= 24
    assert answer["error"]["code"] == wire.BUSY
    attempt = run.status()["attempt"] + 1
    run.kill("trainer")
    run.wait_step(1, attempt)
    wait_for("the state to be saved", lambda: run.run_dir.state().attempt == attempt)
    assert run.pid("supervisor") == pid
    watch = run.workspace.start("watch", run.id, "--json")  # no connection is left: it reads the files
    assert json.loads(output(watch).readline())["at"] == 0
    watch.kill()
    watch.communicate()
    for client in [*clients, *refused]:
        client.close()
    wait_for("a free connection", lambda: _answers(run))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


def _answers(run: Run) -> bool:
    try:
        client = Attacker(run.run_dir.socket_path)
        client.hello()
    except (OSError, KeyError):
        return False
    client.close()
    return True


def test_the_socket_is_created_again_when_its_file_is_deleted(run: Run, wait_for: WaitFor) -> None:
    pid = run.pid("supervisor")
    staying = Attacker(run.run_dir.socket_path)
    run.run_dir.socket_path.unlink()
    wait_for("the socket", lambda: run.run_dir.socket_path.exists() and _answers(run))
    assert staying.hello()["pid"] == pid
    run.run_dir.socket_path.unlink()
    run.run_dir.socket_path.write_text("not a socket")
    wait_for("the socket", lambda: _answers(run))
    assert_healthy(run, pid)
    staying.close()


def test_a_supervisor_that_does_not_answer_is_bypassed(run: Run, wait_for: WaitFor) -> None:
    watch = run.workspace.start("watch", run.id, "--json")
    pid = run.pid("supervisor")
    seen = json.loads(output(watch).readline())
    os.kill(pid, signal.SIGSTOP)
    try:
        step = run.kind("step")[-1]["step"] + 1
        while seen.get("step", 0) <= step:  # it continues from the files
            seen = json.loads(output(watch).readline())
        run.workspace.run("pause", run.id)
        assert run.phase() == "paused"
        run.workspace.run("resume", run.id)
    finally:
        os.kill(pid, signal.SIGCONT)
    # The request waiting in its socket has the same id, so it is not executed again.
    assert_healthy(run, pid)
    run.wait_step(run.kind("step")[-1]["step"] + 3)
    paused = [r for r in run.kind("state") if r["phase"] == "paused"]
    assert len(paused) == 1
    asked = [json.loads(line) for line in run.run_dir.commands_path.read_text().split("\n") if line]
    assert len({r["id"] for r in asked if r["request"]["method"] == "pause"}) == 1
    watch.kill()
    watch.communicate()


OTHER_USER = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
path, seen = sys.argv[1], []
for name in ("events.jsonl", "commands.jsonl", "state.json", "history.bin", "console.log"):
    try:
        open(os.path.join(os.path.dirname(path), name)).read()
        seen.append(name)
    except OSError:
        pass
s = socket.socket(socket.AF_UNIX); s.settimeout(20)
try:
    s.connect(path)
    s.sendall(b'{"id":1,"method":"hello"}\\n')
    seen.append(repr(s.recv(100)))
except (PermissionError, ConnectionError) as error:
    seen.append(type(error).__name__)
print(*seen)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_can_neither_read_nor_connect(run: Run) -> None:
    def as_other_user() -> str:
        argv = [sys.executable, "-c", OTHER_USER, str(run.run_dir.socket_path)]
        return subprocess.run(argv, cwd="/", capture_output=True, text=True, check=True).stdout.strip()

    folders = [*run.run_dir.path.parents][: len(run.run_dir.path.parts) - len(run.workspace.root.parts)]
    for folder in run.workspace.root.parents:
        if folder.stat().st_uid == os.geteuid() and folder != Path("/") and not folder.stat().st_mode & 0o001:
            os.chmod(folder, 0o711)  # the test's own folders, so that only the home's permissions count
    run.workspace.root.chmod(0o711)
    assert as_other_user() == "PermissionError"
    assert run.run_dir.socket_path.stat().st_mode & 0o777 == 0o600
    for folder in (*folders, run.run_dir.path):  # permissions open: now the supervisor itself must check the user
        os.chmod(folder, 0o711)
    os.chmod(run.run_dir.socket_path, 0o666)
    seen = as_other_user().split()
    assert set(seen[:-1]) <= {"console.log"}
    assert seen[-1] in ("b''", "ConnectionResetError", "BrokenPipeError")
    assert_healthy(run, run.pid("supervisor"))


def test_fifty_clients_of_which_ten_never_read_cost_little_memory(run: Run) -> None:
    pid = run.pid("supervisor")
    with open(run.run_dir.log_path, "ab") as log:  # more than a socket and a buffer hold
        line = json.dumps({"t": 1.0, "kind": "log", "attempt": 1, "text": "x" * 500}).encode() + b"\n"
        for _ in range(40):
            log.write(line * 500)
            log.flush()
    before = rss(pid)
    watchers = [run.workspace.start("watch", run.id, "--json", stdout=subprocess.DEVNULL) for _ in range(4)]
    clients = [Attacker(run.run_dir.socket_path) for _ in range(46)]
    for client in clients:
        client.send(b'{"id":1,"method":"subscribe","params":{"from":0}}\n')
    for watcher in watchers:
        watcher.send_signal(signal.SIGSTOP)
    for client in clients[:36]:
        for _ in range(2000):
            client.line()
    assert_healthy(run, pid)
    assert rss(pid) < before + (16 << 20)
    for watcher in watchers:
        watcher.kill()
        watcher.wait()
    for client in clients:
        client.close()


def test_the_client_of_the_page_follows_a_run_and_reads_a_log(run: Run, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "howto" / "log-client.md").read_text()
    (script,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    argv = [sys.executable, "-I", "-S", "-c", script]  # with the standard library alone

    def losses(lines: Iterable[str]) -> list[tuple[str, ...]]:
        return [tuple(line.split()) for line in lines]

    step = run.kind("step")[-1]["step"] + 5  # which is still to come
    with subprocess.Popen([*argv, str(run.run_dir.path)], stdout=subprocess.PIPE, text=True) as client:
        shown = losses(takewhile(lambda line: not line.startswith(f"{step} "), output(client)))
        client.kill()
    logged = [(str(record["step"]), str(record["loss"])) for record in run.kind("step")]
    assert len(shown) > 25
    assert shown == logged[: len(shown)]

    (tmp_path / "events.jsonl").write_bytes(run.run_dir.log_path.read_bytes() + b'{"t":1,"kind":"step","st')
    read = subprocess.run([*argv, str(tmp_path)], capture_output=True, text=True, check=True)
    assert losses(read.stdout.splitlines())[: len(logged)] == logged

    (example,) = re.findall(r'^    (\{.*"set".*\})$', page, re.MULTILINE)
    sender = Attacker(run.run_dir.socket_path)
    sender.send(example.encode() + b"\n")
    id = json.loads(sender.line())["result"]["id"]
    sender.close()
    run.wait_step(run.kind("step")[-1]["step"] + 3)
    (edit,) = [record for record in run.kind("edit") if record["id"] == id]
    assert edit["ok"] and edit["changed"] == {"lr_scale": [1.0, 0.5]}
