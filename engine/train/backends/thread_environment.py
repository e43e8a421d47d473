"""Says how torch's CPU threads wait for each other; OpenMP reads it from the environment when torch is loaded."""

from __future__ import annotations

import os

SPIN_COUNT = "GOMP_SPINCOUNT"
# libgomp spins 300 000 times before a thread sleeps: some milliseconds, in which it takes a core from the thread that
# it waits for wherever another process is busy too. This many still cover most gaps between two operations of a step.
SPINS = 10_000


def thread_environment() -> dict[str, str]:
    """Return the variables to set for a trainer: none where the user has set how threads wait.

    What a step computes does not depend on them.
    """
    return {} if {SPIN_COUNT, "OMP_WAIT_POLICY"} & os.environ.keys() else {SPIN_COUNT: str(SPINS)}
