"""Measures the list of 500 runs with logs, tags and notes: printed by ``mla-tui ls``, and filtered in the app."""

from __future__ import annotations

import time
from pathlib import Path

from engine.events.labels import Labels
from engine.events.log import LogWriter
from engine.events.status import Launch, RunStatus
from engine.events.types import State, Step
from engine.host.struct_json import write_struct
from engine.runs.store import RunStore
from profiles import registry
from tests.bench.measure import MLA_TUI, report, wall_time
from tui.app.state.run_filter import parse_filter
from tui.app.state.run_list import FILTERS, SORT_ORDERS, filter_and_sort

RUNS = 500
FILTER = "loss<4 lr>=1e-3 tag:moe phase:ended name:run"


def bench_runs(home: Path) -> None:
    store = _make_runs(home)
    report(f"mla-tui ls, {RUNS} runs", [wall_time([MLA_TUI, "ls"]) for _ in range(11)], "s")
    report(
        f"mla-tui ls --filter, {RUNS} runs", [wall_time([MLA_TUI, "ls", "--filter", FILTER]) for _ in range(11)], "s"
    )
    summaries = store.summaries()
    times = []
    for _ in range(101):
        started = time.perf_counter()
        found = filter_and_sort(summaries, parse_filter(FILTER), FILTERS[0], SORT_ORDERS[1])
        times.append(1000 * (time.perf_counter() - started))
    report(f"{RUNS} runs filtered and sorted, {len(found)} found", times, "ms")


def _make_runs(home: Path) -> RunStore:
    store, spec = RunStore(home), registry.load("cpu_demo")
    for index in range(RUNS):
        state = RunStatus(phase="finished", step=300, steps=300, loss=3 + index / 250, started=1.0, attempt=1)
        run = store.create(spec, Launch(name=f"run-{index}"), state)
        with_tag = Labels(tags=("moe",) if index % 2 else (), note=f"note {index}")
        write_struct(run.path / "labels.json", with_tag)
        log = LogWriter(run.log_path, attempt=1)
        log.write(Step(step=300, loss=state.loss))
        log.write(State(phase="finished", reason=""))
        log.close()
    return store
