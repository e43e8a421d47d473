"""Deletes a checkpoint, unless a run still needs it or a process reads it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from engine.checkpoints import checkpoint, retention
from engine.checkpoints.hold import released
from engine.events.run_dir import RunDir
from engine.runs.store import RunStore
from profiles.errors import UserError


def check_delete(store: RunStore, out: Path, step: int) -> None:
    """Raise ``UserError`` where the checkpoint of ``step`` below ``out`` is still needed."""
    path = checkpoint.path_of_step(out, step)
    for run, source in started_from(store):
        if source == os.path.realpath(path):
            raise UserError(f"{path}: run {run.name} started from it and has not ended; it is kept")
    if is_held(path):
        raise UserError(f"{path}: another run or command reads it; it is kept until that has ended")
    retention.check_delete(out, step)


def started_from(store: RunStore) -> Iterator[tuple[RunDir, str]]:
    """Yield each run that has not ended, with the real path of what it started from.

    Until its own first checkpoint, such a run restarts from there.
    """
    for run in (RunDir(store.runs / id) for id in store.ids()):
        launch = run.launch()
        if (source := launch.resume or launch.init_from) and not run.ended():
            yield run, os.path.realpath(source)


def is_held(path: Path) -> bool:
    """Return whether a process reads the checkpoint ``path``, such as a launch that will resume from it."""
    with suppress(OSError), released(path) as is_free:
        return not is_free
    return False


def delete(store: RunStore, out: Path, step: int) -> None:
    """Delete the checkpoint of ``step`` below ``out``. Raises ``UserError`` where it is still needed."""
    check_delete(store, out, step)
    retention.delete(out, step)
