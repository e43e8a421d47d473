"""A rank that gives no sign of life ends the others, even while they wait for it without end."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys, time
from torch.distributed import HashStore
from engine.train.backends import heartbeat
heartbeat.BEAT, heartbeat.PATIENCE = 0.02, 0.5
store, rank, silent_after = HashStore(), int(sys.argv[1]), int(sys.argv[2])
watcher = heartbeat.Heartbeat(store, rank, 3)
watcher.start()
for beat in range(silent_after):
    for other in {0, 1, 2} - {rank}:
        store.set(f"pulse/{other}", str(beat))
    time.sleep(0.02)
if len(sys.argv) > 3:
    watcher.stop()
else:
    time.sleep(60)  # as in a sum that never ends
"""


@pytest.mark.parametrize(("rank", "lost"), [(0, 1), (2, 0)])
@pytest.mark.parametrize("silent_after", [0, 40])
def test_silence_is_the_end(rank: int, lost: int, silent_after: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(rank), str(silent_after)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 75
    assert f"rank {lost} has given no sign of life" in done.stdout + done.stderr


def test_a_run_that_ends_is_no_loss() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, "0", "60", "stop"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
