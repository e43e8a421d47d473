"""Measures comparing ten ended runs of a million steps: opening them and redrawing them."""

from __future__ import annotations

import asyncio
import math
import os
import random
import shutil
import statistics
import time
from pathlib import Path

from msgspec.structs import replace

from engine.events.log_index import LogIndex
from engine.events.run_dir import RunDir
from engine.events.status import Launch, RunStatus
from engine.events.types import State, Step, Val
from engine.host.process import boot_id, host_name
from engine.host.struct_json import encode, write_struct
from engine.runs.store import RunStore
from profiles import registry

RUNS, STEPS, SIZE = 10, 1_000_000, (200, 50)
OPEN_REPEATS, DRAW_REPEATS = 5, 11


def bench_compare(home: Path) -> None:
    store = RunStore(home)
    first = _run(store, 0)
    _write_log(first)
    index = LogIndex(first)
    index.catch_up()
    index.save()
    state = index.state
    index.close()
    write_struct(first.state_path, state)
    for number in range(1, RUNS):
        run_dir = _run(store, number)
        os.link(first.log_path, run_dir.log_path)
        shutil.copy(first.path / "history.bin", run_dir.path)
        write_struct(run_dir.state_path, replace(state, id=run_dir.id, name=f"run {number}"))
    asyncio.run(_measure(store))


def _run(store: RunStore, number: int) -> RunDir:
    state = RunStatus(phase="finished", profile="cpu_demo", backend="torch", steps=STEPS)
    state.host, state.boot = host_name(), boot_id()
    return store.create(registry.load("cpu_demo"), Launch(name=f"run {number}"), state)


def _write_log(run_dir: RunDir) -> None:
    rng = random.Random(1)
    with open(run_dir.log_path, "wb") as log:
        for step in range(1, STEPS + 1):
            loss = 2 + 6 * math.exp(-step / 1e5) + rng.gauss(0, 0.05)
            event = Step(
                *(1e9 + step / 2, 1),
                step=step,
                loss=loss,
                tok_s=4000 + rng.gauss(0, 50),
                lr=3e-4,
                grad_norm=1.5,
                step_s=0.5,
                tokens=step * 2048,
            )
            log.write(encode(event) + b"\n")
            if step % 1000 == 0:
                val = Val(t=1e9 + step / 2, attempt=1, step=step, loss=loss, bucket="val")
                log.write(encode(val) + b"\n")
        log.write(encode(State(1e9, 1, phase="finished")) + b"\n")


async def _measure(store: RunStore) -> None:
    from tui.app.app import MlaApp
    from tui.app.screens.compare import CompareScreen
    from tui.app.widgets.overlay_chart import OverlayChart

    runs = [store.find(id) for id in store.ids()]
    app = MlaApp(store)
    async with app.run_test(size=SIZE) as pilot:
        opened, known = [], []
        for _ in range(OPEN_REPEATS):
            started = time.perf_counter(), time.process_time()
            app.open_compare(runs)
            while not (isinstance(app.screen, CompareScreen) and all(run.series for run in app.screen.runs)):
                await asyncio.sleep(0.005)
            opened.append(_since(started))
            screen = app.screen
            started = time.perf_counter(), time.process_time()
            for _ in range(3):
                screen.action_metric(1)  # the learning rate, which has not been read yet
            while not all("lr" in run.series for run in screen.runs):
                await asyncio.sleep(0.005)
            known.append(_since(started))
            await pilot.press("b", "b", "b", "q")
        app.open_compare(runs)
        while not (isinstance(app.screen, CompareScreen) and all(run.series for run in app.screen.runs)):
            await asyncio.sleep(0.005)
        await pilot.pause()
        screen = app.screen
        _report(f"open {RUNS} ended runs of {STEPS:,} steps", opened)
        _report("another series of the same runs", known)
        for axis in ("step", "tokens", "time"):
            chart = screen.query_one(OverlayChart)
            buckets = sum(len(run.series["loss"].x) for run in screen.runs)
            cold, warm, smooth = [], [], []
            for _ in range(DRAW_REPEATS):
                for run in screen.runs:
                    run._points.clear()
                    run._x_values.clear()
                cold.append(_draw_time(screen, chart))
                warm.append(_draw_time(screen, chart))
                screen.action_smooth()
                smooth.append(_draw_time(screen, chart))
                screen.action_smooth()
                screen.action_smooth()
            _report(f"redraw by {axis}, {buckets} buckets, nothing cached", cold)
            _report(f"redraw by {axis}, all cached", warm)
            _report(f"redraw by {axis}, smooth", smooth)
            await pilot.press("x")
            await pilot.pause()


def _draw_time(screen: object, chart: object) -> tuple[float, float]:
    started = time.perf_counter(), time.process_time()
    screen._paint()  # type: ignore[attr-defined]
    for y in range(chart.size.height):  # type: ignore[attr-defined]
        chart.render_line(y)  # type: ignore[attr-defined]
    return _since(started)


def _since(started: tuple[float, float]) -> tuple[float, float]:
    return time.perf_counter() - started[0], time.process_time() - started[1]


def _report(what: str, times: list[tuple[float, float]]) -> None:
    wall, cpu = (sorted(each) for each in zip(*times, strict=True))
    text = ", ".join(
        f"{statistics.median(t):.3f} s {name}, at most {t[-1]:.3f}" for name, t in (("wall", wall), ("CPU", cpu))
    )
    print(f"{what}: median {text}", flush=True)
