"""An active run with a real server."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest

from engine.events.log import LogWriter
from engine.host.process import Lock, process_identity
from tests.unit.conftest import Make
from tests.unit.runs.served import Served


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
