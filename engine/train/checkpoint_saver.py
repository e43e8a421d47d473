"""Saves checkpoints in a background thread, one at a time, while training continues.

Only the optimizer step changes the tensors of a checkpoint, so a thread writes them during forward and backward of the
next step. Before anything changes those tensors, ``wait`` must be called.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.checkpoints import checkpoint
from engine.checkpoints.retention import apply_retention
from engine.events.types import Alert, Checkpoint
from engine.train.backends.backend import State
from engine.train.backends.ranks import Ranks
from engine.train.checkpoint_folder import CheckpointFolder
from engine.train.reporter import Reporter
from profiles.tables import TrainTable

Best = tuple[float, int]  # value of train.keep_best, and step


@dataclass(frozen=True, slots=True)
class SaveResult:
    """The size of a save, its time, and why it failed (empty after a success).

    ``missing``: that the earlier checkpoints are not there any more, if so.
    """

    bytes: int = 0
    seconds: float = 0.0
    why: str = ""
    missing: str = ""


class CheckpointSaver:
    """Saves the checkpoints of ``run`` to ``out``. Every rank has one and makes the same calls; rank 0 writes."""

    def __init__(self, out: Path, train: TrainTable, reporter: Reporter, ranks: Ranks, run: str) -> None:
        self.newest_step: int | None = None  # the step a restart would resume from
        self.saved_step: int | None = None  # the step whose checkpoint equals the run's current state
        self.best: Best | None = None  # the saved step with the lowest validation loss, or highest accuracy
        self._out = out
        self._folder = CheckpointFolder(out, run)
        self._keep = train.keep
        self._by = train.keep_best
        self._reporter = reporter
        self._ranks = ranks
        self._run = run
        self._save: _PendingSave | None = None

    def resume(self, path: Path, step: int, facts: Mapping[str, Any]) -> None:
        """Take over that the run was resumed from the checkpoint ``path`` of ``step``, whose metadata are ``facts``."""
        self.newest_step = step
        best = facts.get("best") if facts.get("best_by", "val_loss") == self._by else None
        self.best = (best[0], best[1]) if best else None
        if path.parent == self._out:  # else the run's own folder has no checkpoint of it yet
            self.saved_step = step
            self._folder.note_saved(step)
            if self._ranks.rank == 0 and path == checkpoint.latest(self._out):
                self._finish_killed_save()

    def _finish_killed_save(self) -> None:
        """Do what an attempt that was killed had not done: after the last step of a run no other save does it."""
        with contextlib.suppress(OSError):  # the next save tries again
            checkpoint.clean_up(self._out)
        apply_retention(self._out, self._keep, self.best[1] if self.best else None, self._run)

    def is_saved(self, step: int) -> bool:
        """Return whether a checkpoint of the current state, of ``step``, is there; the same on all ranks."""
        return step == self.saved_step and self._ranks.run_on_rank_zero(lambda: self._folder.has(step))

    @property
    def pending(self) -> bool:
        """Whether a save was started and not waited for."""
        return self._save is not None

    @property
    def finished(self) -> bool:
        """Whether the pending save is done, so that ``wait`` returns at once. Only rank 0 knows."""
        return self._save is not None and self._save.done.is_set()

    def start_save(
        self,
        step: int,
        state_dict: Callable[[], State],
        metadata: dict[str, Any],
        tokenizer: Path,
        id: str | None = None,
    ) -> None:
        """Start to save ``state_dict()``, whose tensors must not change until ``wait``. ``metadata`` is copied now.

        The ``checkpoint`` record is written by ``wait``, with the ``id`` of the command that requested it.
        """
        self.wait()
        best, value = self.best, metadata[self._by]
        if value is not None and math.isfinite(value) and (best is None or self._is_better(value, best[0])):
            best = (value, step)
        save = self._save = _PendingSave(step, best, id)
        if self.is_saved(step):
            save.finish(SaveResult())
            return
        tensors = state_dict()  # collective: all ranks take part
        metadata = {**metadata, "best": list(best) if best else None, "best_by": self._by, "run": self._run}
        if self._ranks.rank == 0:
            keep = self._keep, best[1] if best else None
            save.start(lambda: _write(self._folder, step, tensors, metadata, tokenizer, keep))
        save.stalled = time.perf_counter() - save.started

    def wait(self) -> str:
        """Wait for the pending save, if any; return why it failed, or nothing, the same on all ranks."""
        save, self._save = self._save, None
        if save is None:
            return ""
        waiting = time.perf_counter()
        result = self._ranks.run_on_rank_zero(save.result)
        save.stalled += time.perf_counter() - waiting
        return self._record(save, result)

    def close(self) -> None:
        """Wait for the pending save at the end of the run, on rank 0 alone: the other ranks may be gone."""
        save, self._save = self._save, None
        if save is not None and self._ranks.rank == 0:
            self._record(save, save.result())

    def _is_better(self, value: float, best: float) -> bool:
        return value < best if self._by == "val_loss" else value > best

    def _record(self, save: _PendingSave, result: SaveResult) -> str:
        if not result.why:
            self._folder.note_saved(save.step)
            self.newest_step = self.saved_step = save.step
            self.best = save.best
        self._reporter.record(
            Checkpoint(
                id=save.id,
                ok=not result.why,
                step=save.step,
                path=str(self._out / f"ckpt_step_{save.step}"),
                bytes=result.bytes,
                seconds=result.seconds,
                stall_s=save.stalled,
                why=result.why,
            )
        )
        if result.missing and not result.why:
            self._reporter.record(Alert(what="checkpoint", text=f"{result.missing}; this one is in a new folder"))
        return result.why


class _PendingSave:
    """A save that was started and not waited for. ``stalled``: the seconds that training waited for it."""

    def __init__(self, step: int, best: Best | None, id: str | None) -> None:
        self.step = step
        self.best = best
        self.id = id
        self.started = time.perf_counter()
        self.stalled = 0.0
        self.done = threading.Event()
        self._result = SaveResult()
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def start(self, body: Callable[[], SaveResult]) -> None:
        self._thread = threading.Thread(target=self._run, args=(body,), name="checkpoint")
        self._thread.start()

    def finish(self, result: SaveResult) -> None:
        self._result = result
        self.done.set()

    def result(self) -> SaveResult:
        """Wait for the thread and return its result, or raise its error."""
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error
        return self._result

    def _run(self, body: Callable[[], SaveResult]) -> None:
        result = SaveResult()
        try:
            result = body()
        except BaseException as error:  # ``result`` raises it in the training thread
            self._error = error
        self.finish(replace(result, seconds=time.perf_counter() - self.started))


def _write(
    folder: CheckpointFolder,
    step: int,
    state: State,
    metadata: dict[str, Any],
    tokenizer: Path,
    keep: tuple[int, int | None],
) -> SaveResult:
    """Write the checkpoint and apply retention."""
    try:
        missing = folder.missing()
        _, size = checkpoint.save(folder.path, step, state, metadata, tokenizer)
    except checkpoint.CheckpointError as error:
        return SaveResult(why=str(error))
    apply_retention(folder.path, *keep, metadata["run"])
    return SaveResult(bytes=size, missing=missing)
