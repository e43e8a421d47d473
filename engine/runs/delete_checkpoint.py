"""Deletes a checkpoint, unless a run still needs it."""

from __future__ import annotations

from pathlib import Path

from engine.checkpoints import checkpoint
from engine.events.run_dir import RunDir
from engine.runs.store import RunStore
from profiles.errors import UserError


def check_delete(store: RunStore, out: Path, step: int) -> None:
    """Whether nobody needs the checkpoint of ``step`` below ``out``. Raises ``UserError``."""
    path = checkpoint.of_step(out, step)
    for run in (RunDir(store.runs / id) for id in store.ids()):
        # Until its own first checkpoint, a restart of that run goes back to this one.
        if run.start().get("resume") == str(path) and not run.ended():
            raise UserError(f"{path}: run {run.name} began from it and has not ended; it stays")
    checkpoint.check_delete(out, step)


def delete(store: RunStore, out: Path, step: int) -> None:
    """Delete the checkpoint of ``step`` below ``out``, if nobody needs it. Raises ``UserError``."""
    check_delete(store, out, step)
    checkpoint.delete(out, step)
