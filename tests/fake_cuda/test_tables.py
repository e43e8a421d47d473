"""The four calls that measure a card run to their end, in small, and print their tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(1800)  # as slow as a loaded machine
@pytest.mark.parametrize(
    ("call", "tables"),
    [
        ("A", ("| compiled |", "| DeepSpeed, offload |", "all together")),
        ("B", ("| everything on (1) |", "| everything off (1) |")),
        ("C", ("| uncapped |", "| capped: bf16_sr, states8bit, selective, micro 2 |")),
        ("D", ("Forecast against the allocated peak", "Longest context found to train: 128.")),
    ],
)
def test_a_call_prints_its_tables_last(call: str, tables: tuple[str, ...], tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [ROOT / "tests/gpu/run.sh", call, "--dry-run"],
        env={**os.environ, "PATH": path, "OUT": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    printed = done.stdout[done.stdout.index("\n| ") :]
    assert all(text in printed for text in tables), done.stdout
    assert "not measured" not in printed
    measured = [line for line in printed.splitlines() if "%" in line and line.startswith("|")]
    assert all(line.rstrip(" |").endswith("math") for line in measured)  # the attention of each row
    cells = [cell for file in tmp_path.glob("gpu-*.json") for cell in json.loads(file.read_text()) if "changes" in cell]
    assert len(cells) > 1 and len({cell["matmul_peak_flop_s"] for cell in cells}) == 1  # one measurement a call


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (["E"], "'E' is not one of A, B, C, D"),
        (["A", "--wheels", "/nowhere"], "'/nowhere' is not a folder of wheels"),
        (["B", "--quick"], "'--quick' is not an option"),
    ],
)
def test_what_it_does_not_know_is_refused(words: list[str], refusal: str) -> None:
    done = subprocess.run([ROOT / "tests/gpu/run.sh", *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"run.sh: {refusal}; use ")
