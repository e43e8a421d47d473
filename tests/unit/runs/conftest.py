"""A store of one's own, and jobs in it as a launch, a supervisor and a trainer leave them."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from engine.events.log import LogWriter
from engine.events.run_dir import Job
from engine.host.process import Lock, identity, this_boot, this_host
from engine.runs.store import Store
from profiles import registry
from tests.unit.runs.served import Served

Make = Callable[..., Job]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


@pytest.fixture
def make_job(store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Make:
    """``make_job(name, **state)`` → a new job of this host and boot."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    spec = registry.load("cpu_demo")

    def make(name: str | None = None, **state: Any) -> Job:
        usual = {
            "phase": "running",
            "attempt": 1,
            "host": this_host(),
            "boot": this_boot(),
            "started": time.time() - 60,
        }
        return store.create(spec, {"name": name, "resume": None, "init_from": None}, {**usual, **state})

    return make


@pytest.fixture
async def run(make_job: Make) -> AsyncIterator[Served]:
    """A living run, its supervisor's lock held."""
    job = make_job(supervisor=identity(os.getpid()), trainer=identity(os.getpid()))
    served = Served(job, LogWriter(job.log_path, 1))
    lock = Lock(job.supervisor_lock)
    assert lock.acquire()
    await served.server.start()
    yield served
    await served.server.close()
    lock.release()
