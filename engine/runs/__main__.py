"""Runs the supervisor of one run: ``python -m engine.runs RUN_DIRECTORY``."""

from __future__ import annotations

import engine.host.light_asyncio  # noqa: F401, before anything that imports asyncio

# isort: split
import asyncio
import os
import signal
import sys
from pathlib import Path

from engine.events.run_dir import RunDir
from engine.events.start_supervisor import start_supervisor
from engine.host.files import remove_temporaries, write_stderr
from engine.host.process import Lock, process_identity
from engine.memory.calibration import FILE_NAME as CALIBRATION
from engine.runs.supervisor import Supervisor
from profiles.errors import UserError


def main() -> int:
    """Supervise the run until it has ended, unless another supervisor does."""
    run_dir = RunDir(Path(sys.argv[1]).absolute())
    lock = Lock(run_dir.supervisor_lock, f"{process_identity(os.getpid())}")
    try:
        # Its lock may have been deleted, and not be made again yet.
        if run_dir.has_supervisor() or not lock.acquire(timeout=0.5):
            return 0  # another supervisor has the run
    except OSError as error:
        write_stderr(f"supervisor.lock: {error}")
        return 1
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    remove_temporaries(run_dir.path)
    remove_temporaries(run_dir.home, CALIBRATION)  # others may lie there
    try:
        supervisor = Supervisor(run_dir, lock)
    except (OSError, UserError) as error:
        write_stderr(f"{error}")
        return 1
    try:
        asyncio.run(supervisor.run())
    except UserError as error:
        write_stderr(str(error))
        return error.exit_code
    remove_temporaries(run_dir.path)
    lock.release()
    if supervisor.files.needs_successor:
        start_supervisor(run_dir)
    return 0


if __name__ == "__main__":
    sys.exit(main())
