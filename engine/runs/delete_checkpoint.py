"""Deletes a checkpoint, unless a run still needs it."""

from __future__ import annotations

from pathlib import Path

from engine.checkpoints import checkpoint
from engine.events.run_dir import RunDir
from engine.runs.store import RunStore
from profiles.errors import UserError


def check_delete(store: RunStore, out: Path, step: int) -> None:
    """Raise ``UserError`` where a run still needs the checkpoint of ``step`` below ``out``."""
    path = checkpoint.path_of_step(out, step)
    for run in (RunDir(store.runs / id) for id in store.ids()):
        # Until its own first checkpoint, that run restarts from this one.
        if run.launch().resume == str(path) and not run.ended():
            raise UserError(f"{path}: run {run.name} started from it and has not ended; it is kept")
    checkpoint.check_delete(out, step)


def delete(store: RunStore, out: Path, step: int) -> None:
    """Delete the checkpoint of ``step`` below ``out``. Raises ``UserError`` where a run still needs it."""
    check_delete(store, out, step)
    checkpoint.delete(out, step)
