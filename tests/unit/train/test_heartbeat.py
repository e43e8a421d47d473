"""A dead rank ends the others, even while they wait for it in a collective."""

from __future__ import annotations

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
