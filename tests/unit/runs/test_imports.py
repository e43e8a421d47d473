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


@pytest.mark.parametrize("module", ["engine.runs.__main__", "tui.app.app"])
def test_a_program_that_keeps_running_loads_no_openssl_and_can_when_something_needs_it(module: str) -> None:
    script = f"import sys, {module}; print([m for m in ('_ssl', '_hashlib') if m in sys.modules]); import ssl"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
