"""Measures a trainer's start: from exec to the end of the first step of ``cpu_demo``, beside ``import torch`` alone."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

PAIRS = 11
IMPORT_TORCH = [sys.executable, "-c", "import torch"]


def bench_start(home: Path) -> None:
    """Start both in turn, so that other load on the machine affects them alike."""
    overrides = ("val_every=0", "save_every=0", f"train.out={home}/models")
    train = [sys.executable, "-m", "tui.cli", "train", "-p", "cpu_demo", *(w for o in overrides for w in ("-s", o))]
    wall: dict[str, list[float]] = {"import torch": [], "first step": []}
    cpu: dict[str, list[float]] = {"import torch": [], "first step": []}
    for _ in range(PAIRS):
        for name, argv, until in (("import torch", IMPORT_TORCH, b""), ("first step", train, b"step 1/")):
            seconds, cpu_seconds = _start(argv, until)
            wall[name].append(seconds)
            cpu[name].append(cpu_seconds)
    for unit, found in (("s", wall), ("CPU s", cpu)):
        more = [step - torch for step, torch in zip(found["first step"], found["import torch"], strict=True)]
        for name, times in (*found.items(), ("difference", more)):
            low, high = min(times), max(times)
            print(f"{name}: {statistics.median(times):.2f} {unit} ({low:.2f} to {high:.2f}, n {len(times)})")


def _start(argv: list[str], until: bytes) -> tuple[float, float]:
    """Run ``argv`` until a line of its output begins with ``until``, or to its end; return seconds and CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    with subprocess.Popen(argv, stdout=subprocess.PIPE, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if until and line.startswith(until):
                break
        if until:
            process.kill()
        process.wait()
        seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
