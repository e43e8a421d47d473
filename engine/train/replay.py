"""Which sequences a step of a run has taken: the data's order is a pure function, so nothing of it is logged.

spec.json (or the checkpoint a run began from) says where its cursor began; edits and rewinds in the log moved it.
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
    """The run as it was when it took the sequences of ``step`` (from 1 up), and the cursor at the first of them.

    A step that is still to come is answered as if nothing more were asked of the run. Raises ``UserError``.
    """
    spec, at, cursor = _beginning(run)
    last = spec.train.steps
    if not at < step <= last:
        raise UserError(f"step {step}: {run.name} has the steps {at + 1} to {last}")
    past = EditHistory.of(r for _, r in scan(run.log_path, b'"edit"', b'"rewind"') if r["kind"] in ("edit", "rewind"))
    opened = _opener(spec)
    while True:
        for record in pop_due(past.edits, at):
            spec = applied(spec, record)
            cursor = cursor.at_context(spec.batch.context)
        for record in pop_due(past.rewinds, at):
            cursor = Cursor.from_dict(record["cursor"]).at_context(spec.batch.context)
        if at == step - 1:
            return spec, cursor
        turns = (int(record["step"]) for record in (*past.edits, *past.rewinds))
        until = min((turn for turn in turns if turn > at), default=step)
        until = min(until, step - 1)
        cursor = cursor.advance((until - at) * spec.batch.sequences, opened(spec.batch.context).sequences)
        at = until


def _beginning(run: RunDir) -> tuple[RunSpec, int, Cursor]:
    spec, resume = run.spec(), run.start().get("resume")
    if not resume:
        return spec, 0, Cursor(spec.train.seed, spec.batch.context)
    facts = checkpoint.metadata(Path(resume))
    return spec, int(facts["step"]), Cursor.from_dict(facts["cursor"]).at_context(spec.batch.context)


def _opener(spec: RunSpec) -> Callable[[int], PackedBinDataset]:
    @lru_cache
    def opened(context: int) -> PackedBinDataset:
        return open_split(replace(spec, batch=replace(spec.batch, context=context)), "train")

    return opened
