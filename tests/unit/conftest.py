"""A separate run store for each test, and runs in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.events.run_dir import RunDir
from engine.events.status import Launch, RunStatus
from engine.host.process import ProcessIdentity, boot_id, host_name
from engine.runs.store import RunStore
from profiles import registry

Make = Callable[..., RunDir]
DEAD = ProcessIdentity((1 << 22) + 1, 1)  # a process that is not alive: above the largest pid there can be


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "home")


@pytest.fixture
def make_run(store: RunStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Make:
    """``make_run(name, **state)`` → a new run of this host and boot."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    spec = registry.load("cpu_demo")

    def make(name: str | None = None, **state: Any) -> RunDir:
        usual: dict[str, Any] = {
            "phase": "running",
            "attempt": 1,
            "host": host_name(),
            "boot": boot_id(),
            "started": time.time() - 60,
        }
        return store.create(spec, Launch(name=name), RunStatus(**{**usual, **state}))

    return make
