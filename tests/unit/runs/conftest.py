"""A store of its own for each test, and runs in it as a launch, a supervisor and a trainer leave them."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from engine.events.log import LogWriter
from engine.events.run_dir import RunDir
from engine.host.process import Lock, boot_id, host_name, process_identity
from engine.runs.store import RunStore
from profiles import registry
from tests.unit.runs.served import Served

Make = Callable[..., RunDir]


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "home")


@pytest.fixture
def make_run(store: RunStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Make:
    """``make_run(name, **state)`` → a new run of this host and boot."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    spec = registry.load("cpu_demo")

    def make(name: str | None = None, **state: Any) -> RunDir:
        usual = {
            "phase": "running",
            "attempt": 1,
            "host": host_name(),
            "boot": boot_id(),
            "started": time.time() - 60,
        }
        return store.create(spec, {"name": name, "resume": None, "init_from": None}, {**usual, **state})

    return make


@pytest.fixture
async def run(make_run: Make) -> AsyncIterator[Served]:
    """An active run; the lock of its supervisor is held."""
    run_dir = make_run(supervisor=process_identity(os.getpid()), trainer=process_identity(os.getpid()))
    served = Served(run_dir, LogWriter(run_dir.log_path, 1))
    lock = Lock(run_dir.supervisor_lock)
    assert lock.acquire()
    await served.server.start()
    yield served
    await served.server.close()
    lock.release()
