"""Notices that the earlier checkpoints of a run have vanished: their folder was moved, or its disk is not mounted."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from engine.checkpoints import checkpoint
from engine.checkpoints.retention import steps_of


class CheckpointFolder:
    """``path`` is the folder of the checkpoints of ``run``, as the process that writes them sees it."""

    def __init__(self, path: Path, run: str) -> None:
        self.path = path
        self._run = run
        self._device: int | None = None  # that has the checkpoints; None: there are none yet
        self._newest = 0  # step

    def note_saved(self, step: int) -> None:
        """Take in that the folder has the checkpoint of ``step``: the run has saved it, or has gone on from it."""
        self._newest = step
        with contextlib.suppress(OSError):
            self._device = self.path.stat().st_dev

    def has(self, step: int) -> bool:
        return checkpoint.path_of_step(self.path, step).is_dir()

    def missing(self) -> str:
        """Return that the earlier checkpoints are not there any more, or nothing where they are.

        Raises ``CheckpointError`` where their disk is not: a new checkpoint would lie below its mount point, out of
        sight once it is mounted again. Who does want it there makes the folder.
        """
        if self._device is None or self.has(self._newest) or steps_of(self.path, self._run):
            return ""
        above = next(folder for folder in self.path.parents if os.path.exists(folder))
        if not os.path.exists(self.path) and os.stat(above).st_dev != self._device:
            raise checkpoint.CheckpointError(
                f"{self.path}: the disk with the checkpoints of this run is not mounted; mount it again, or make this"
                " folder, and the next checkpoint is written there"
            )
        return f"{self.path}: the earlier checkpoints of this run were moved or deleted"
