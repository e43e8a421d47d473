"""A dead rank ends the others, even while they wait for it in a collective."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

SCRIPT = """
import sys, time
from torch.distributed import HashStore
from engine.train.backends import heartbeat
heartbeat.INTERVAL, heartbeat.TIMEOUT = 0.02, 0.5
store, rank, silent_after = HashStore(), int(sys.argv[1]), int(sys.argv[2])
thread = heartbeat.Heartbeat(store, rank, 3)
thread.start()
for beat in range(silent_after):
    for other in {0, 1, 2} - {rank}:
        store.set(f"heartbeat/{other}", str(beat))
    time.sleep(0.02)
if len(sys.argv) > 3:
    thread.stop()
else:
    time.sleep(60)  # as in a collective that never returns
"""


@pytest.mark.parametrize(("rank", "dead"), [(0, 1), (2, 0)])
@pytest.mark.parametrize("silent_after", [0, 40])
def test_a_rank_without_heartbeats_ends_the_process(rank: int, dead: int, silent_after: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(rank), str(silent_after)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 75
    assert f"rank {dead} sent no heartbeat" in done.stdout + done.stderr


def test_a_run_that_ends_normally_is_not_a_dead_rank() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, "0", "60", "stop"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


STORE = """
import sys, time
from datetime import timedelta
from torch.distributed import TCPStore
from engine.train.backends import heartbeat
heartbeat.INTERVAL, heartbeat.TIMEOUT = 0.02, 0.5
if sys.argv[1:]:
    store = TCPStore("127.0.0.1", int(sys.argv[1]), is_master=False)
    store.set("heartbeat/0", "1")
    heartbeat.Heartbeat(store, 1, 2).start()
else:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    print(store.port, flush=True)
    store.wait(["heartbeat/1"], timedelta(seconds=60))
    print("beats", flush=True)
time.sleep(30)
"""


def test_a_store_that_no_longer_answers_ends_the_process() -> None:
    """A stopped process keeps its connections and answers nothing, like a machine that the network has lost."""
    server = subprocess.Popen([sys.executable, "-c", STORE], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        port = server.stdout.readline().strip()
        rank = subprocess.Popen([sys.executable, "-c", STORE, port], stderr=subprocess.PIPE, text=True)
        assert server.stdout.readline() == "beats\n"
        server.send_signal(signal.SIGSTOP)
        _, said = rank.communicate(timeout=60)  # without a watch it exits with 0 by then
    finally:
        server.kill()
        server.communicate()
    assert rank.returncode == 75
    assert "the machine of rank 0 has not answered for 0.5 s" in said
