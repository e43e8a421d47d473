"""Measures whether ``mla-tui tune`` finds what is at least as fast as the profile's own way.

For each profile and backend that trains here in minutes it tunes, and then measures the profile and the tuned one in
pairs of its own, one directly after the other. Below 1 is slower than the profile.
"""

from __future__ import annotations

import os
import statistics
import subprocess
from pathlib import Path

from engine.memory.hardware import cpu_name
from engine.train.measure.grid import Budget, build_cell, measure_cell
from tests.bench.measure import MLA_TUI

# The built-in profiles of mla-1b take hours for a step of 96 sequences on a CPU, or do not fit.
CASES = (
    ("torch", ()),
    ("torch", ("context=1024",)),
    ("torch", ("sequences=64", "micro=1")),
    ("deepspeed", ()),
    ("mlx", ()),
)
PAIRS = 5
SECONDS = 5.0


def bench_tune(home: Path) -> None:
    os.environ["XDG_CONFIG_HOME"] = str(home)
    print(f"{cpu_name()}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}")
    for number, (backend, overrides) in enumerate(CASES):
        name = f"tuned{number}"
        words = ["-p", "cpu_demo", "--backend", backend, *(word for text in overrides for word in ("-s", text))]
        tune = [MLA_TUI, "tune", *words, "--name", name, "--seconds", f"{SECONDS:g}", "--synthetic"]
        done = subprocess.run(tune, capture_output=True, text=True, check=True)
        cells = [
            build_cell("cpu_demo", [f"launch.backend={backend}", *overrides], {}, synthetic=True),
            build_cell(name, [], {}, synthetic=True),
        ]
        ratios = []
        for _ in range(PAIRS):
            own, tuned = (measure_cell(cell, Budget(seconds=SECONDS, peak=1e11))["tok_s"] for cell in cells)
            ratios.append(tuned / own)
        verdict = next(line for line in done.stdout.splitlines() if "tokens/s, " in line)
        print(
            f"{' '.join(('cpu_demo', backend, *overrides))}: {verdict}; measured again"
            f" {statistics.median(ratios):.3f} × ({min(ratios):.3f} to {max(ratios):.3f}, {PAIRS} pairs)",
            flush=True,
        )
