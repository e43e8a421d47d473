"""Checks that what a run resumes from is still there."""

from __future__ import annotations

from pathlib import Path

from engine.checkpoints import checkpoint
from engine.events.run_dir import RunDir


def missing_source(run: RunDir, saved: str | None) -> str | None:
    """Return a line that names what ``run`` has to resume from and that is not there, or None.

    ``saved``: the newest checkpoint that the run has written, as its log says. If there is one, an empty folder means
    that a disk is not mounted or the folder was removed: a start at step 0 would write a second history.
    """
    if saved:
        folder = Path(saved).parent
        return None if checkpoint.steps(folder) else f"{folder}: the checkpoints of this run are missing"
    start = run.start()
    for source in (start.get("resume"), start.get("init_from")):
        if source and not Path(source).exists():
            return f"{source}: is missing, and this run starts from it"
    return None
