"""Starts the supervisor of a run that has none, and warns of one of another version."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir


def ensure_supervised(run_dir: RunDir) -> None:
    """Start a supervisor for an active run that has none, and the pending hooks of an ended one."""
    from engine.runs.launch import ensure_supervisor, run_pending_hooks

    if run_dir.ended():
        run_pending_hooks(run_dir)
    elif run_dir.is_on_this_boot():
        ensure_supervisor(run_dir)


def warn_of_version_mismatch(run_dir: RunDir) -> None:
    import asyncio

    from engine.runs.client import RunClient

    if line := asyncio.run(RunClient(run_dir).version_mismatch()):
        print(f"mla-tui: {line}", file=sys.stderr)
