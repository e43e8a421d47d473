"""A store with real run directories: written by the store and the log writer, as a supervisor and a trainer would."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from engine.events.log import LogWriter
from engine.events.run_dir import RunDir
from engine.events.status import Launch, RunStatus
from engine.events.types import Start, State, Step
from engine.host.process import boot_id, host_name, process_identity
from engine.host.struct_json import write_struct
from engine.runs.store import RunStore
from profiles import registry

Make = Callable[..., tuple[RunDir, LogWriter]]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunStore:
    monkeypatch.setenv("MLA_TUI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return RunStore()


def step_record(step: int, loss: float | None = None, **fields: Any) -> dict[str, Any]:
    return {
        **{"step": step, "loss": 2 + 6 * math.exp(-step / 50) if loss is None else loss, "lr": 3e-3, "grad_norm": 1.5},
        **{"tokens": step * 2048, "tok_s": 4000.0, "step_s": 0.5, "data_s": 0.001, "micro": 8, "accum": 1},
        **{"context": 256, "device_peak": None, "host_states": 0, "mfu": None, **fields},
    }


@pytest.fixture
def make_run(store: RunStore) -> Iterator[Make]:
    """``make_run(name, steps, phase=…)`` → the run and its log writer. The trainer of an active run is this process."""
    writers: list[LogWriter] = []

    def make(name: str, steps: int, phase: str = "finished", backend: str = "torch") -> tuple[RunDir, LogWriter]:
        spec = registry.load("cpu_demo")
        active = phase not in ("finished", "failed", "stopped")
        state: dict[str, Any] = {
            **{"profile": "cpu_demo", "backend": backend, "steps": spec.train.steps, "micro": 8, "accum": 1},
            **{"context": 256, "version": "0", "host": host_name(), "boot": boot_id(), "phase": phase},
            **{"attempt": 1, "started": time.time() - steps, "step": steps, "loss": 2.0},
        }
        if active:
            state["trainer"] = process_identity(os.getpid())
        run = store.create(spec, Launch(name=name), RunStatus(**state))
        writer = LogWriter(run.log_path, attempt=1)
        writers.append(writer)
        writer.write(Start(plan={}, params=3_200_000, device="cpu", versions={}, resumed_from=None))
        writer.write(State(phase="running", reason=""))
        for step in range(1, steps + 1):
            writer.write(Step(**step_record(step)))
        if not active:
            writer.write(State(phase=phase, reason=""))
            write_struct(run.state_path, replace(run.state(), **state, at=run.log_path.stat().st_size))
        return run, writer

    yield make
    for writer in writers:
        writer.close()
