"""Finds the checkpoint that an argument of the command line names."""

from __future__ import annotations

from pathlib import Path


def find_checkpoint_argument(text: str, out: str = "models", name: str | None = None) -> Path:
    """Return the checkpoint ``text``: a path, a run, or ``latest`` (``engine/runs/find_checkpoint.py``).

    ``out``: the folder of the checkpoints of a run in the foreground. Raises ``UserError``.
    """
    from engine.runs.find_checkpoint import find_checkpoint
    from engine.runs.store import RunStore
    from profiles.paths import expand

    return find_checkpoint(text, RunStore(), expand(out, "train.out"), name)
