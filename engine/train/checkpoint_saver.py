"""Checkpoints written behind the training, one at a time.

What a checkpoint holds changes only when the optimizer steps, so a thread writes it while forward and backward of the
next step run. Whoever is about to change those tensors calls ``wait`` first.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.checkpoints import checkpoint
from engine.train.backends.backend import State
from engine.train.backends.ranks import Ranks
from engine.train.reporter import Reporter

Best = tuple[float, int]  # validation loss and step


@dataclass(frozen=True, slots=True)
class Written:
    """What became of one write."""

    bytes: int
    seconds: float
    why: str  # it could not be written; empty where it was


class CheckpointSaver:
    """The checkpoints of one run below ``out``. Each rank has one and calls it alike; rank 0's writes."""

    def __init__(self, out: Path, keep: int, reporter: Reporter, ranks: Ranks) -> None:
        self.newest_step: int | None = None  # the step a restart would go on from
        self.saved_step: int | None = None  # the step whose checkpoint is what the run is at
        self.best: Best | None = None  # of the saved steps, the lowest validation loss known by then
        self._out = out
        self._keep = keep
        self._reporter = reporter
        self._ranks = ranks
        self._writing: _Writing | None = None

    @property
    def pending(self) -> bool:
        """Whether a checkpoint was begun that nobody has settled."""
        return self._writing is not None

    @property
    def finished(self) -> bool:
        """Whether there is one to settle, and that takes no time. Only rank 0 knows."""
        return self._writing is not None and self._writing.done.is_set()

    def start_save(
        self,
        step: int,
        state: Callable[[], State],
        facts: dict[str, Any],
        tokenizer: Path,
        id: str | None = None,
    ) -> None:
        """Begin to write what ``state`` gives, whose tensors stay as they are until ``wait``; ``facts`` are kept as
        they are now. The ``checkpoint`` record, with the ``id`` of who asked for it, comes when it is there."""
        self.wait()
        best, val_loss = self.best, facts["val_loss"]
        if val_loss is not None and (best is None or val_loss < best[0]):
            best = (val_loss, step)
        writing = self._writing = _Writing(step, best, id)
        if step == self.saved_step:
            writing.end(Written(0, 0.0, ""))
            return
        tensors = state()  # of several ranks all take part in gathering it
        facts = {**facts, "best": list(best) if best else None}
        if self._ranks.rank == 0:
            keep = self._keep, best[1] if best else None
            writing.start(lambda: _write(self._out, step, tensors, facts, tokenizer, keep))
        writing.stalled = time.perf_counter() - writing.begun

    def wait(self) -> str:
        """Wait for what was begun, if anything; why it could not be written, or nothing. The same on all ranks."""
        writing, self._writing = self._writing, None
        if writing is None:
            return ""
        waited = time.perf_counter()
        written = self._ranks.run_on_rank_zero(writing.result)
        writing.stalled += time.perf_counter() - waited
        return self._end(writing, written)

    def close(self) -> None:
        """The run ends, with or without the other ranks: wait for what was begun, so that it is written and told."""
        writing, self._writing = self._writing, None
        if writing is not None and self._ranks.rank == 0:
            self._end(writing, writing.result())

    def _end(self, writing: _Writing, written: Written) -> str:
        if not written.why:
            self.newest_step = self.saved_step = writing.step
            self.best = writing.best
        self._reporter.record(
            "checkpoint",
            **({"id": writing.id} if writing.id else {}),
            step=writing.step,
            path=str(self._out / f"ckpt_step_{writing.step}"),
            bytes=written.bytes,
            seconds=written.seconds,
            stall_s=writing.stalled,
            ok=not written.why,
            why=written.why,
        )
        return written.why


class _Writing:
    """One write, begun and not settled."""

    def __init__(self, step: int, best: Best | None, id: str | None) -> None:
        self.step = step
        self.best = best
        self.id = id
        self.begun = time.perf_counter()
        self.stalled = 0.0
        self.done = threading.Event()
        self._written = Written(0, 0.0, "")
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def start(self, body: Callable[[], tuple[int, str]]) -> None:
        self._thread = threading.Thread(target=self._run, args=(body,), name="checkpoint")
        self._thread.start()

    def end(self, written: Written) -> None:
        self._written = written
        self.done.set()

    def result(self) -> Written:
        """Wait; raises what the writing raised."""
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error
        return self._written

    def _run(self, body: Callable[[], tuple[int, str]]) -> None:
        size, why = 0, ""
        try:
            size, why = body()
        except BaseException as error:  # it belongs to whoever settles
            self._error = error
        self.end(Written(size, time.perf_counter() - self.begun, why))


def _write(
    out: Path, step: int, state: State, facts: dict[str, Any], tokenizer: Path, keep: tuple[int, int | None]
) -> tuple[int, str]:
    """Write the checkpoint and delete what need not be kept; its bytes, and why it could not be written, or nothing."""
    try:
        _, size = checkpoint.save(out, step, state, facts, tokenizer)
    except checkpoint.CheckpointError as error:
        return 0, str(error)
    checkpoint.apply_retention(out, *keep)
    return size, ""
