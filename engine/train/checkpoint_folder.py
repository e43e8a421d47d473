"""Notices that the earlier checkpoints of a run have vanished: their folder was moved, or its disk is not mounted."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from engine.checkpoints import checkpoint


class CheckpointFolder:
    """``path`` is the folder of a run's checkpoints, as the process that writes them sees it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._device: int | None = None  # that has the checkpoints; None: there are none yet

    def note_saved(self) -> None:
        """Take in that the folder has a checkpoint of this run."""
        with contextlib.suppress(OSError):
            self._device = self.path.stat().st_dev

    def has(self, step: int) -> bool:
        return checkpoint.path_of_step(self.path, step).is_dir()

    def missing(self) -> str:
        """Return that the earlier checkpoints are not there any more, or nothing where they are.

        Raises ``CheckpointError`` where their disk is not: a new checkpoint would lie below its mount point, out of
        sight once it is mounted again. Who does want it there makes the folder.
        """
        if self._device is None or checkpoint.steps(self.path):
            return ""
        above = next(folder for folder in self.path.parents if os.path.exists(folder))
        if not os.path.exists(self.path) and os.stat(above).st_dev != self._device:
            raise checkpoint.CheckpointError(
                f"{self.path}: the disk with the checkpoints of this run is not mounted; mount it again, or make this"
                " folder, and the next checkpoint is written there"
            )
        return f"{self.path}: the earlier checkpoints of this run were moved or deleted"
