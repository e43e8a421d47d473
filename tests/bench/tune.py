"""Measures whether ``mla-tui tune`` finds what is at least as fast as the profile's own way.

It tunes each profile on each backend that runs on a CPU, and then measures the profile and the tuned one in pairs of
its own, one directly after the other. Below 1 is slower than the profile.
"""

from __future__ import annotations

import os
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.memory.hardware import cpu_name
from engine.train.measure.grid import Budget, build_cell, measure_cell
from tests.bench.measure import MLA_TUI


@dataclass(frozen=True, slots=True)
class Case:
    """A profile on a backend, with overrides."""

    profile: str
    backend: str
    overrides: Sequence[str] = ()

    @property
    def words(self) -> list[str]:
        return [f"launch.backend={self.backend}", *self.overrides]

    @property
    def name(self) -> str:
        return " ".join((self.profile, self.backend, *self.overrides))


# A step of mla-1b takes hours on a CPU, or does not fit; what a profile allows is the same with a small model.
SMALL = ("model.name=mla-tiny", "sequences=12", "context=512", "compile=off")
SHORT = ("sequences=4", "context=64")  # MLX on a CPU multiplies at 2 GFLOP/s: 256 tokens of mla-tiny take 2 s
CASES = (
    Case("cpu_demo", "torch"),
    Case("cpu_demo", "torch", ("context=1024",)),
    Case("cpu_demo", "torch", ("sequences=64", "micro=1")),
    Case("cpu_demo", "deepspeed"),
    Case("cpu_demo", "mlx", (*SHORT, "micro=2")),
    Case("pretrain_5080", "torch", SMALL),
    Case("pretrain_5080", "deepspeed", SMALL),
    Case("longctx_5090", "torch", (*SMALL[:1], "sequences=4", "context=2048", "compile=off")),
    Case("gpu_fast", "torch", SMALL),
    Case("mac_m4_pro", "mlx", ("model.name=mla-tiny", *SHORT)),
)
PAIRS = 5
SECONDS = 5.0
WAYS = 6


def bench_tune(home: Path) -> None:
    os.environ["XDG_CONFIG_HOME"] = str(home)
    print(f"{cpu_name()}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}")
    for number, case in enumerate(CASES):
        print(measured(case, f"tuned{number}", WAYS, SECONDS, PAIRS), flush=True)


def measured(case: Case, name: str, ways: int, seconds: float, pairs: int) -> str:
    """Tune ``case`` into the profile ``name``, measure both in pairs, and return a line about them."""
    words = ["-p", case.profile, *(word for text in case.words for word in ("-s", text))]
    tune = [MLA_TUI, "tune", *words, "--name", name, "--ways", str(ways), "--seconds", f"{seconds:g}", "--synthetic"]
    done = subprocess.run(tune, capture_output=True, text=True)
    if done.returncode:
        return f"{case.name}: {done.stderr.strip()}"
    cells = [build_cell(case.profile, case.words, {}, synthetic=True), build_cell(name, [], {}, synthetic=True)]
    ratios = []
    for _ in range(pairs):
        own, tuned = (measure_cell(cell, Budget(seconds=seconds, peak=1e11))["tok_s"] for cell in cells)
        ratios.append(tuned / own)
    verdict = next(line for line in done.stdout.splitlines() if "tokens/s, " in line)
    found = f"{statistics.median(ratios):.3f} × ({min(ratios):.3f} to {max(ratios):.3f}, {pairs} pairs)"
    return f"{case.name}: {verdict}; measured again {found}"
