"""Measures a step of ``cpu_demo`` beside processes that keep a core busy, for several ways of OpenMP's threads to wait.

Each way has a process of its own, because OpenMP reads its settings when it is loaded. They step in turn, one step at a
time, so that other load on the machine affects them alike.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROUNDS = 15
BUSY = (0, 1, 2)  # processes beside the step
WAYS = {
    "default": {},
    "GOMP_SPINCOUNT=0": {"GOMP_SPINCOUNT": "0"},
    "GOMP_SPINCOUNT=2000": {"GOMP_SPINCOUNT": "2000"},
    "GOMP_SPINCOUNT=5000": {"GOMP_SPINCOUNT": "5000"},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "GOMP_SPINCOUNT=20000": {"GOMP_SPINCOUNT": "20000"},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


class Stepper:
    """A process that takes a step when it is asked to."""

    def __init__(self, variables: dict[str, str]) -> None:
        from engine.runs.supervisor import KEEP_PAGES

        names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OMP_NUM_THREADS")
        own = {name: value for name, value in os.environ.items() if name not in names}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.threads"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**own, **KEEP_PAGES, "CUDA_VISIBLE_DEVICES": "", **variables},
        )

    def step(self) -> tuple[float, float]:
        """Return seconds and CPU seconds of one step."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("step\n")
        self._process.stdin.flush()
        seconds, cpu = self._process.stdout.readline().split()
        return float(seconds), float(cpu)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def bench_threads(home: Path) -> None:
    steppers = {name: Stepper(variables) for name, variables in WAYS.items()}
    for stepper in steppers.values():
        for _ in range(2):  # the first allocates
            stepper.step()
    for busy in BUSY:
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in steppers}
        with _busy(busy):
            for _ in range(ROUNDS):
                for name, stepper in steppers.items():
                    taken[name].append(stepper.step())
        print(
            f"beside {busy} busy processes, {os.cpu_count()} cores, {ROUNDS} steps each, load {os.getloadavg()[0]:.1f}"
        )
        for name, steps in taken.items():
            seconds = sorted(wall for wall, _ in steps)
            quartiles = f"{seconds[len(seconds) // 4]:.2f} to {seconds[-1 - len(seconds) // 4]:.2f}"
            cpu = statistics.median(cpu for _, cpu in steps)
            print(f"  {name:24} {statistics.median(seconds):.2f} s a step ({quartiles}), {cpu:.2f} CPU s", flush=True)
    for stepper in steppers.values():
        stepper.close()


@contextlib.contextmanager
def _busy(count: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _step_when_asked() -> None:
    import numpy as np

    from engine.train.backends.torch_backend import TorchBackend
    from profiles.registry import load

    spec = load("cpu_demo")
    backend = TorchBackend(spec)
    batch = np.random.default_rng(0).integers(
        0, spec.model.config.vocab_size, (spec.batch.micro, spec.batch.context + 1)
    )
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        backend.accumulate(batch, spec.tokens_per_step, last=True)
        backend.window_totals()
        backend.optimizer_step(1e-4, 1.0)
        print(time.perf_counter() - wall, time.process_time() - cpu, flush=True)


if __name__ == "__main__":
    _step_when_asked()
