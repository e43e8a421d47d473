"""Recomputes the spec and the data cursor of a run at any step, so that the sequences of a step need not be logged.

The order of the data is a pure function of the cursor. The cursor starts as in spec.json (or in the checkpoint the run
was resumed from); edits and rewinds in the log move it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from data.cursor import Cursor
from data.dataset import PackedBinDataset
from data.splits import open_split
from engine.checkpoints import checkpoint
from engine.events.log import scan
from engine.events.run_dir import RunDir
from engine.train.edit_history import EditHistory, pop_due
from engine.train.edits import applied
from profiles.errors import UserError
from profiles.spec import RunSpec


def state_before_step(run: RunDir, step: int) -> tuple[RunSpec, Cursor]:
    """Return the spec and the cursor with which the run read the sequences of ``step`` (the first step is 1).

    A future step is answered as if there were no more edits. Raises ``UserError`` for a step the run does not have.
    """
    spec, at, cursor = _initial(run)
    last = spec.train.steps
    if not at < step <= last:
        raise UserError(f"step {step}: {run.name} has the steps {at + 1} to {last}")
    history = EditHistory.of(
        r for _, r in scan(run.log_path, b'"edit"', b'"rewind"') if r["kind"] in ("edit", "rewind")
    )
    open_at = _opener(spec)
    while True:
        for record in pop_due(history.edits, at):
            spec = applied(spec, record)
            cursor = cursor.at_context(spec.batch.context)
        for record in pop_due(history.rewinds, at):
            cursor = Cursor.from_dict(record["cursor"]).at_context(spec.batch.context)
        if at == step - 1:
            return spec, cursor
        changes = (int(record["step"]) for record in (*history.edits, *history.rewinds))
        until = min((change for change in changes if change > at), default=step)
        until = min(until, step - 1)
        cursor = cursor.advance((until - at) * spec.batch.sequences, open_at(spec.batch.context).sequences)
        at = until


def _initial(run: RunDir) -> tuple[RunSpec, int, Cursor]:
    """Return the spec, step and cursor that the run started with."""
    spec, resume = run.spec(), run.start().get("resume")
    if not resume:
        return spec, 0, Cursor(spec.train.seed, spec.batch.context)
    metadata = checkpoint.metadata(Path(resume))
    return spec, int(metadata["step"]), Cursor.from_dict(metadata["cursor"]).at_context(spec.batch.context)


def _opener(spec: RunSpec) -> Callable[[int], PackedBinDataset]:
    """Return a function that opens the training data at a context, once for each."""

    @lru_cache
    def open_at(context: int) -> PackedBinDataset:
        return open_split(replace(spec, batch=replace(spec.batch, context=context)), "train")

    return open_at
