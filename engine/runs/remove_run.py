"""Removes an ended run, with or without its checkpoints; says before how much each takes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from engine.checkpoints import checkpoint
from engine.checkpoints.ownership import checkpoint_dir, checkpoints_of
from engine.checkpoints.retention import delete_all
from engine.events.run_dir import RunDir
from engine.runs.delete_checkpoint import is_held, started_from
from engine.runs.store import RunStore
from profiles.errors import UserError


class Removal(NamedTuple):
    """What would be removed. ``kept``: why the checkpoints must stay; empty if they need not."""

    run: RunDir
    folder: str  # of its checkpoints; empty where the damaged spec does not say
    bytes: int  # of the run's directory
    checkpoints: int
    checkpoint_bytes: int
    kept: str


def plan_removal(store: RunStore, run: RunDir) -> Removal:
    """Return what the removal of ``run`` would delete. Raise ``UserError`` while it is active."""
    run.check_remove()
    size = _bytes(run.path)
    try:
        has = checkpoints_of(run)
    except UserError as error:
        return Removal(run, "", size, 0, 0, str(error))
    total = sum(_bytes(checkpoint.path_of_step(has.out, step)) for step in has.own)
    return Removal(run, str(has.out), size, len(has.own), total, _needed_by(store, run, has.out))


def remove_run(store: RunStore, run: RunDir, with_checkpoints: bool) -> None:
    """Remove ``run``; its checkpoints first, so that a failure leaves a run that lists what is left.

    Raise ``UserError`` while the run is active, or where another run needs its checkpoints.
    """
    run.check_remove()
    if with_checkpoints:
        has = checkpoints_of(run)
        if kept := _needed_by(store, run, has.out):
            raise UserError(kept)
        delete_all(has.out, has.own)
    run.remove()


def _needed_by(store: RunStore, run: RunDir, out: Path) -> str:
    """Return who else writes to ``out``, or reads or still restarts from a checkpoint in it; empty if none does."""
    for other, source in started_from(store):
        if os.path.dirname(source) == os.path.realpath(out) and other.id != run.id:
            return f"{out}: run {other.name} started from it and has not ended; its checkpoints are kept"
    for path in (checkpoint.path_of_step(out, step) for step in checkpoint.steps(out)):
        if is_held(path):
            return f"{path}: another run or command reads it; the checkpoints are kept until that has ended"
    for other in (RunDir(store.runs / id) for id in store.ids() if id != run.id):
        try:
            if other.name == run.name and checkpoint_dir(other).absolute() == out.absolute():
                return f"{out}: is also the folder of run {other.id}; its checkpoints are kept"
        except UserError:
            continue  # a damaged spec: its folder is not known
    return ""


def _bytes(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file())
