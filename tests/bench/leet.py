"""Measures W&B LEET on the same kind of run, in the same terminal, with the same functions.

A writer logs the four series of our panes once a second (``wandb.init(mode="offline")``), and ``wandb leet RUN`` shows
them. The writer flushes and samples the machine once a second (default: 15 s), and LEET polls every second, so that its
screen is live. Measured twice: with the default layout (two side bars; at 80x24 two of four charts), and with our
layout (four charts, no side bars).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.measure import Pty, Size, process_tree, pss, report

WRITER = """
import sys, time, wandb
fast, active = int(sys.argv[1]), sys.argv[2] == "active"
settings = wandb.Settings(
    x_stats_sampling_interval=1.0, x_transaction_log_flush_interval=1.0, console="off", silent=True)
run = wandb.init(mode="offline", project="bench", dir=".", settings=settings)
def log(step):
    noise = step * 2654435761 % 1000 / 1e4
    run.log({"loss": 2.0 + noise, "tok_s": 9830.2 + noise * 1000, "device_peak": 9_663_676_416 + step,
             "host_states": 12_298_195_968 + step})
for step in range(1, fast + 1):
    log(step)
print(run.dir, flush=True)
while active:
    time.sleep(1)
    step += 1
    log(step)
run.finish()
print("finished", flush=True)
"""
LAYOUTS: dict[str, dict[str, Any]] = {
    "default layout": {"heartbeat_interval_seconds": 1},
    "four charts": {
        **{"heartbeat_interval_seconds": 1, "metrics_grid": {"rows": 2, "cols": 2}},
        **{"left_sidebar_visible": False, "right_sidebar_visible": False},
    },
}
Watch = Callable[[str, Sequence[str], Size, dict[str, str]], None]
PAINTED = 1024  # bytes: more than a program's queries to the terminal, less than any screen


def bench_leet(
    folder: Path, wandb: str, watch: Watch, app: Sequence[str], sizes: Sequence[Size], initial: int, loaded: int
) -> None:
    """``watch`` measures an active run of ``initial`` steps; ``app`` shows one of ``loaded`` steps, as LEET does."""
    folder.mkdir()
    version = subprocess.run([wandb, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    print(version)
    with _logged(folder, wandb, initial, active=True) as run:
        for name, layout in LAYOUTS.items():
            for size in sizes:
                watch(f"leet, {name}", [wandb, "leet", run], size, _config(folder, layout))
    with _logged(folder, wandb, loaded, active=False) as run:
        config = _config(folder, LAYOUTS["four charts"])
        for size in sizes:
            _paint(size, {"app": (app, {}), "leet": ([wandb, "leet", run], config)})
            _load(wandb, run, size, config, loaded)


def _config(folder: Path, layout: dict[str, Any]) -> dict[str, str]:
    config = folder / "config"
    config.mkdir(exist_ok=True)
    (config / "wandb-leet.json").write_text(json.dumps(layout))
    return {"WANDB_CONFIG_DIR": str(config)}


@contextmanager
def _logged(folder: Path, wandb: str, steps: int, active: bool) -> Iterator[str]:
    """Yield the folder of a run; an active run logs a step per second, another is finished."""
    python = str(Path(wandb).parent / "python")
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    argv = [python, "-c", WRITER, str(steps), "active" if active else "ended"]
    writer = subprocess.Popen(argv, cwd=folder, env=env, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    try:
        run = Path(writer.stdout.readline().strip()).parent
        if not active:
            writer.stdout.readline()
            writer.wait()
        yield str(folder / run)
    finally:
        writer.terminate()
        writer.wait()


def _paint(size: Size, programs: dict[str, tuple[Sequence[str], dict[str, str]]]) -> None:
    """Measure exec to the first screen of a long run, alternating, so that both see the same machine load."""
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(7):
        for name, (argv, env) in programs.items():
            program = Pty(argv, size, env)
            times[name].append(program.read_bytes(PAINTED))
            program.close()
    for name, seconds in times.items():
        report(f"{name}, {size[0]}x{size[1]}, exec to the first screen, alternating", seconds, "s")


def _load(wandb: str, run: str, size: Size, env: dict[str, str], steps: int) -> None:
    results = []
    what = f"leet, four charts, {size[0]}x{size[1]}, an ended run of {steps} steps"
    for _ in range(3):
        leet = Pty([wandb, "leet", run], size, env)
        try:
            results.append(leet.settle(timeout=60))
            memory = sum(map(pss, process_tree(leet.pid)))
        except TimeoutError as error:
            print(f"{what}: {error}")
            return
        finally:
            leet.close()
    first, full = (statistics.median(s[i] for s in results) for i in (0, 1))
    print(
        f"{what}: first byte {first:.2f} s, quiet after {full:.2f} s (median of 3),"
        f" {results[-1].received / 1024:.1f} KB, {memory / 1e6:.0f} MB proportional"
    )
