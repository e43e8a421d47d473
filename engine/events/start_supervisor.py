"""Starts the supervisor of a run: at launch, and again when a process finds that it is no longer alive."""

from __future__ import annotations

import subprocess

from engine.events.run_dir import RunDir
from engine.host.process import inherited_lock_fds, spawn_detached
from engine.host.programs import SUPERVISOR, python_module
from engine.host.systemd_scope import scope_prefix


def start_supervisor(run: RunDir) -> subprocess.Popen[bytes]:
    """Start a supervisor without waiting for it, and return its process.

    If one is alive already, the new one finds its lock held and exits.
    """
    argv = [*scope_prefix(f"{run.id}-supervisor"), *python_module(SUPERVISOR, str(run.path))]
    return spawn_detached(argv, run.console_path, run.path, pass_fds=inherited_lock_fds())
