"""Measures speed and memory on this machine (``make bench``). Prints medians; nothing passes or fails.

Arguments name sections; without arguments all run. ``--leet PATH`` (a ``wandb`` executable) measures W&B LEET too.
"""

from __future__ import annotations

import argparse
import asyncio
import compileall
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from engine.events.types import Step
from mla_tui import PACKAGES
from tests.bench.app import bench_app
from tests.bench.compare import bench_compare
from tests.bench.gguf import bench_gguf
from tests.bench.harness import bench_harness
from tests.bench.log import bench_log
from tests.bench.measure import MLA_TUI, Pty, cpu, report, rss, wall_time
from tests.bench.pack import bench_pack
from tests.bench.recipes import bench_average, bench_demo, bench_larger, bench_recipes
from tests.bench.runs import bench_runs
from tests.bench.start import bench_start
from tests.bench.threads import bench_threads
from tests.bench.tune import bench_tune
from tests.bench.weights import bench_weights


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--leet", metavar="PATH", help="a wandb executable, version 0.31 or later")
    parser.add_argument("sections", nargs="*", metavar="SECTION")
    args = parser.parse_args()
    sections: dict[str, Callable[[Path], None]] = {
        "ls": bench_ls,
        "runs": bench_runs,
        "paint": bench_time_to_first_paint,
        "launch": bench_first_step,
        "start": bench_start,
        "threads": bench_threads,
        "weights": bench_weights,
        "step": bench_step,
        "run": bench_run,
        "log": bench_log,
        "compare": bench_compare,
        "pack": bench_pack,
        "recipes": bench_recipes,
        "average": bench_average,
        "larger": bench_larger,
        "demo": bench_demo,
        "gguf": bench_gguf,
        "harness": bench_harness,
        "tune": bench_tune,
        "app": partial(bench_app, leet=args.leet),
    }
    if unknown := set(args.sections) - sections.keys():
        parser.error(f"unknown section {', '.join(sorted(unknown))}; sections: {', '.join(sections)}")
    for package in PACKAGES:  # as an installer does; what was changed since would be compiled at every start
        compileall.compile_dir(Path(__file__).parents[2] / package, quiet=1)
    for name in args.sections or sections:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["MLA_TUI_HOME"] = folder
            sections[name](Path(folder))


def bench_ls(home: Path) -> None:
    _make_runs(home, 100)
    times = [wall_time([MLA_TUI, "ls"]) for _ in range(21)]
    report("mla-tui ls, 100 runs", times, "s")


def bench_time_to_first_paint(home: Path) -> None:
    _make_runs(home, 20)
    times = [_time_to_first_paint([MLA_TUI]) for _ in range(11)]
    report("first paint of the app, from exec", times, "s")


def bench_first_step(home: Path) -> None:
    times = []
    for _ in range(3):
        started = time.time()
        run = _launch(home, "steps=2", "val_every=0", "save_every=0")
        times.append(_wait_for_step(run, 1) - started)
        subprocess.run([MLA_TUI, "watch", run.name], stdout=subprocess.DEVNULL, check=True)
    report("launch to the first step of cpu_demo", times, "s")


def bench_step(home: Path) -> None:
    subprocess.run([MLA_TUI, "bench", "-p", "cpu_demo"], check=True)


def bench_run(home: Path) -> None:
    """A running cpu_demo with the app attached: cost of the supervisor, latency of a record, bytes of the app."""
    run = _launch(home, "steps=100000", "val_every=0", "save_every=0")
    _wait_for_step(run, 1)
    state = json.loads((run / "state.json").read_text())
    supervisor = state["supervisor"]["pid"]
    app = Pty([MLA_TUI, "attach", run.name], (80, 24))
    app.read_for(5)
    seconds = 20
    before, app_before = cpu(supervisor), cpu(app.pid)
    latencies: list[float] = []
    received = app.read_for(seconds, lambda: latencies.extend(_latency(run)))
    share = (cpu(supervisor) - before) / seconds
    print(f"supervisor: {rss(supervisor) / 1e6:.1f} MB resident, {share:.2%} of a core")
    print(f"app, 80x24: {rss(app.pid) / 1e6:.1f} MB resident, {(cpu(app.pid) - app_before) / seconds:.2%} of a core")
    print(f"app, 80x24: {received / seconds / 1024:.2f} KB/s at the pty, four live panes")
    if latencies:
        report("a step record from the trainer to a client", latencies, "s")
    app.close()
    subprocess.run([MLA_TUI, "stop", "--no-save", run.name], check=True, stderr=subprocess.DEVNULL)


def _latency(run: Path) -> list[float]:
    """Return the ages of a few step records when they arrive through the socket."""
    from engine.events.run_dir import RunDir
    from engine.runs.client import RunClient

    async def gather() -> list[float]:
        client = RunClient(RunDir(run))
        start = (await client.history([], 1)).at
        ages = []
        async for _, event in client.events(start):
            if isinstance(event, Step):
                ages.append(time.time() - event.t)
            if len(ages) == 5:
                break
        return ages

    return asyncio.run(gather())


def _time_to_first_paint(argv: list[str]) -> float:
    app = Pty(argv, (80, 24))
    seconds = app.read_until(b"mla-tui")
    app.close()
    return seconds


def _make_runs(home: Path, count: int) -> None:
    from engine.events.status import Launch, RunStatus
    from engine.runs.store import RunStore
    from profiles import registry

    store, spec = RunStore(home), registry.load("cpu_demo")
    for _ in range(count):
        store.create(spec, Launch(), RunStatus(phase="finished", step=300, steps=300, loss=4.2, started=1.0, attempt=1))


def _launch(home: Path, *overrides: str) -> Path:
    flags = [word for text in (*overrides, f"train.out={home}/models") for word in ("-s", text)]
    answer = subprocess.run([MLA_TUI, "launch", "-p", "cpu_demo", *flags], capture_output=True, text=True, check=True)
    return home / "runs" / answer.stdout.strip()


def _wait_for_step(run: Path, step: int) -> float:
    """Return when the record of ``step`` was written."""
    from engine.events.log import read_all

    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for _, record in read_all(run / "events.jsonl"):
            if isinstance(record, Step) and record.step >= step:
                return float(record.t)
        time.sleep(0.02)
    raise TimeoutError(f"{run.name}: no step {step}")


if __name__ == "__main__":
    main()
