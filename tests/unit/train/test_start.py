"""A trainer's start loads nothing that it does not need."""

from __future__ import annotations

import subprocess
import sys

import pytest

from engine.train.backends.thread_environment import thread_environment

STEP = """
import sys
import engine.train.main
assert "torch" not in sys.modules  # it reads what the trainer sets in the environment
import numpy as np
from engine.train.backends.torch_backend import TorchBackend
from profiles.registry import load
for name in ("adamw", "muon"):
    small = ["model.num_hidden_layers=1", "sequences=8", "micro=8", "context=32", f"optim.name={name}"]
    backend = TorchBackend(load("cpu_demo", small))
    backend.accumulate(np.zeros((8, 33), dtype=np.int64), 8 * 32, last=True)
    backend.window_totals()
    backend.optimizer_step(1e-3, 1.0)
print([module for module in ("torch._dynamo", "torch._inductor", "sympy", "deepspeed") if module in sys.modules])
"""


def test_a_step_that_compiles_nothing_does_not_import_the_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", STEP], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


@pytest.mark.parametrize("own", ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"])
def test_threads_wait_as_the_user_has_set(monkeypatch: pytest.MonkeyPatch, own: str) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    assert thread_environment() == {"GOMP_SPINCOUNT": "10000"}
    monkeypatch.setenv(own, "active")
    assert thread_environment() == {}
