"""Starts the supervisor of a run that has none, and warns of one of another version."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from engine.events.phases import CUT_OFF
from tui.text.run_text import resumes_at

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir
    from engine.events.status import Summary


def ensure_supervised(run_dir: RunDir) -> None:
    """Start a supervisor for an active run that has none, and the pending hooks of an ended one.

    A run whose processes were both killed is resumed, and said to be.
    """
    from engine.runs.supervision import ensure_supervisor, run_pending_hooks

    if run_dir.ended():
        run_pending_hooks(run_dir)
    elif run_dir.is_on_this_boot():
        summary = run_dir.summary()
        ensure_supervisor(run_dir)
        if summary.phase == CUT_OFF:
            print_resuming(run_dir, summary)


def print_resuming(run_dir: RunDir, summary: Summary) -> None:
    """Print that a run that was cut off, as ``summary`` says, resumes."""
    step, reason = summary.step or 0, summary.reason
    lost = resumes_at(summary)
    print(
        f"{run_dir.id} was cut off at step {step}: {reason}; resuming{'' if lost is None else f' at step {lost}'}",
        file=sys.stderr,
    )


def warn_of_version_mismatch(run_dir: RunDir) -> None:
    import asyncio

    from engine.runs.client import RunClient

    if line := asyncio.run(RunClient(run_dir).version_mismatch()):
        print(f"mla-tui: {line}", file=sys.stderr)
