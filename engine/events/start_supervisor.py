"""Starts the supervisor of a run: done at a launch, and by whoever finds that none is alive."""

from __future__ import annotations

from engine.events.run_dir import RunDir
from engine.host.process import inherited_lock_fds, spawn_detached
from engine.host.programs import SUPERVISOR, python_module
from engine.host.systemd_scope import scope_prefix


def start_supervisor(run: RunDir) -> None:
    """Start a supervisor and do not wait. Where one lives already the new one sees the lock and leaves."""
    argv = [*scope_prefix(f"{run.id}-supervisor"), *python_module(SUPERVISOR, str(run.path))]
    spawn_detached(argv, run.console_path, run.path, keep=inherited_lock_fds())
