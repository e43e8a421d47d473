"""Blocks and loss compile to machine code of a card's architecture, forward and backward."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from tests.fake_cuda.test_training import CHECKPOINTING, PRECISIONS

TRITON = os.environ.get("FAKE_CUDA_TRITON", "")  # where make fake-cuda has installed it
ALL = [*product((90, 120), CHECKPOINTING, PRECISIONS)]
IN_CI = [(90, "selective", "bf16_sr"), (120, "none", "bf16")]


@pytest.mark.timeout(1800)  # as slow as a loaded machine
@pytest.mark.skipif(not TRITON, reason="needs Triton: make fake-cuda")
@pytest.mark.parametrize(
    ("architecture", "mode", "precision"),
    [pytest.param(*cell, marks=() if cell in IN_CI else pytest.mark.faults) for cell in ALL],
)
def test_a_step_compiles_for_a_card(architecture: int, mode: str, precision: str, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "FAKE_CUDA_SM": str(architecture),
        "PYTHONPATH": f"{os.environ['PYTHONPATH']}:{TRITON}",
        "TRITON_CACHE_DIR": str(tmp_path / "triton"),
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor"),
    }
    settings = [f"memory.checkpointing={mode}", f"train.precision={precision}"]
    argv = [sys.executable, "-m", "tests.fake_cuda.cubins", *settings]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    kernels = json.loads(done.stdout)
    assert all(kernel["architecture"].startswith(f"sm_{architecture}") for kernel in kernels)
    assert [kernel["name"] for kernel in kernels if kernel["stack"]] == []  # no registers are spilled
    by_phase = {phase: [k["name"] for k in kernels if k["phase"] == phase] for phase in ("forward", "backward")}
    assert any("silu" in name for name in by_phase["forward"])
    assert any("logsumexp" in name for name in by_phase["forward"])
    assert len(by_phase["backward"]) > 5
