"""A supervisor lives for weeks and must stay small: it may not import what only trainers and screens need."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "safetensors", "tokenizers", "mlx", "textual")


@pytest.mark.parametrize(
    "module", ["runs.supervisor", "runs.client", "runs.launch", "runs.store", "train.run_reporter"]
)
def test_no_torch_and_no_numpy_is_loaded(module: str) -> None:
    script = f"import sys, engine.{module}; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
