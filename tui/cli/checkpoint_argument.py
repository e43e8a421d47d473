"""Finds the checkpoint that an argument of the command line names."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from profiles.errors import UserError


def find_checkpoint_argument(text: str, out: str = "models", name: str | None = None) -> Path:
    """Return the checkpoint ``text``: a path, a run, or ``latest`` (``engine/runs/find_checkpoint.py``).

    ``out``: the folder of the checkpoints of a run in the foreground. Raises ``UserError``.
    """
    from engine.runs.find_checkpoint import find_checkpoint
    from engine.runs.store import RunStore
    from profiles.paths import expand

    return find_checkpoint(text, RunStore(), expand(out, "train.out"), name)


@contextmanager
def reading(path: Path, given: str) -> Iterator[None]:
    """While the block reads the checkpoint ``path``, its run keeps it; one that is gone already is said to be.

    ``given``: the argument that named it. Raises ``UserError``.
    """
    from engine.checkpoints.hold import held

    try:
        with held(path):
            yield
    except (UserError, OSError):
        if path.is_dir():
            raise
        raise UserError(removed(path, given)) from None


def removed(path: Path, given: str) -> str:
    """Return a line about a checkpoint that is gone, with the command that takes the newest one in its place."""
    from engine.checkpoints import checkpoint

    text = f"{path}: was removed while it was read"
    if (newest := checkpoint.latest(path.parent)) is None:
        return text
    words = [str(newest) if word == given else word for word in sys.argv[1:]]
    return f"{text}; a run keeps its newest checkpoints, take that: {shlex.join(['mla-tui', *words])}"
