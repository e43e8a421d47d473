"""Starts the supervisor of a run: done at a launch, and by whoever finds that none is alive."""

from __future__ import annotations

from engine.events.run_dir import Job
from engine.host.process import held_fds, spawn_detached
from engine.host.programs import SUPERVISOR, python_module
from engine.host.systemd_scope import in_scope


def start_supervisor(job: Job) -> None:
    """Start a supervisor and do not wait. Where one lives already the new one sees the lock and leaves."""
    argv = [*in_scope(f"{job.id}-supervisor"), *python_module(SUPERVISOR, str(job.path))]
    spawn_detached(argv, job.console_path, job.path, keep=held_fds())
