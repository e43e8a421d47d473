"""Deletes checkpoints: those that a run no longer keeps, the one that a user names, or all of a run."""

from __future__ import annotations

import contextlib
from pathlib import Path

from engine.checkpoints import checkpoint
from engine.checkpoints.hold import released
from engine.host.process import Lock
from profiles.errors import UserError


def apply_retention(out: Path, keep: int, best: int | None, run: str = "") -> None:
    """Delete all that ``run`` has saved but the newest ``keep``, the best one and the one that ``latest`` points at.

    What another process reads, or cannot be deleted, is tried again the next time.
    """
    newest = checkpoint.latest(out)
    for step in steps_of(out, run)[:-keep]:
        path = checkpoint.path_of_step(out, step)
        if step != best and path != newest:
            with contextlib.suppress(OSError), released(path) as is_free:
                if is_free:
                    checkpoint.remove(path)


def check_delete(out: Path, step: int) -> None:
    """Raise ``UserError`` for the checkpoints of a run that retention always keeps: the best and the newest."""
    path = checkpoint.path_of_step(out, step)
    newest = checkpoint.newest_of(out, steps_of(out, checkpoint.owner(path)))
    if path == checkpoint.latest(out):
        raise UserError(f"{path}: is the newest, from which the run resumes; it is kept")
    if path == newest:
        raise UserError(f"{path}: is the newest of the run that saved it; it is kept")
    for judge in (newest, checkpoint.latest(out)):
        if step == best_step(judge):
            raise UserError(f"{path}: has {_best_words(judge)}; it is kept")


def delete(out: Path, step: int) -> None:
    """Delete the checkpoint of ``step``, and what is left of earlier deletions.

    Raises ``UserError`` where it must be kept, or on a disk error.
    """
    check_delete(out, step)
    _delete(out, [step])


def delete_all(out: Path, those: list[int]) -> None:
    """Delete the checkpoints of the steps ``those``; if it is then without any, all that belongs to them, and ``out``.

    Raises ``UserError`` on a disk error.
    """
    _delete(out, those)
    lock = Lock(out / ".lock")
    try:
        if not out.is_dir() or checkpoint.steps(out) or not lock.acquire():  # a run that saves its first one holds it
            return
        _remove_rest(out, ".ckpt_step_*")
        for path in (*out.glob(".latest.*"), out / "latest", lock.path):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            out.rmdir()
    except OSError as error:
        raise UserError(f"{out}: cannot be deleted: {error.strerror or error}") from None
    finally:
        lock.release()


def _delete(out: Path, those: list[int]) -> None:
    """Delete checkpoints, and what is left of earlier deletions. Raises ``UserError`` on a disk error."""
    for step in those:
        path = checkpoint.path_of_step(out, step)
        try:
            checkpoint.remove(path)
        except OSError as error:
            raise UserError(f"{path}: cannot be deleted: {error.strerror or error}") from None
    _remove_rest(out, ".ckpt_step_*.gone")


def _remove_rest(out: Path, pattern: str) -> None:
    """Delete what is left of deletions, or also of saves. Raises ``UserError`` on a disk error."""
    try:
        checkpoint.remove_rest(out, pattern)
    except OSError as error:
        raise UserError(
            f"{error.filename}: what is left of a checkpoint cannot be deleted: {error.strerror};"
            " the next deletion in that folder tries again"
        ) from None


def best_step(newest: Path | None) -> int | None:
    """Return the step that is best by ``train.keep_best``, as recorded in the ``newest`` checkpoint of a run."""
    best = None
    with contextlib.suppress(UserError):  # where the newest is damaged, it is not known
        best = checkpoint.metadata(newest).get("best") if newest else None
    return best[1] if best else None


def _best_words(newest: Path | None) -> str:
    """Return what the best checkpoint of a run is the best by, in words."""
    by_accuracy = newest is not None and checkpoint.metadata(newest).get("best_by") == "eval_acc"
    return "the highest accuracy of the evaluations" if by_accuracy else "the lowest validation loss"


def steps_of(out: Path, run: str | None) -> list[int]:
    """Return the steps in ``out`` that ``run`` has saved; those that do not say who did count as of each."""
    found = checkpoint.steps(out)
    return [
        step for step in found if run is None or checkpoint.owner(checkpoint.path_of_step(out, step)) in (None, run)
    ]
