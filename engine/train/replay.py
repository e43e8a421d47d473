"""Recomputes spec, data and cursor of a run at any step, so that the sequences of a step need not be logged.

The order of the data is a pure function of the cursor. The cursor starts as in spec.json (or in the checkpoint the run
was resumed from); edits, rewinds and changes of the data in the log move it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from data.continuing import continued
from data.cursor import Cursor
from data.fingerprint import Fingerprint
from data.recorded import RecordedShards
from data.splits import fingerprint_of, open_split, open_splits
from engine.checkpoints import checkpoint
from engine.checkpoints.resume_source import checkpoint_data
from engine.events.log import needles, scan
from engine.events.run_dir import RunDir
from engine.events.types import Edit, Rewind, Start
from engine.train.data_check import recorded_data
from engine.train.edit_history import EditHistory, pop_due
from engine.train.edits import applied
from profiles.errors import UserError
from profiles.spec import RunSpec


@dataclass(frozen=True, slots=True)
class StepData:
    """What a step reads: ``spec.batch.sequences`` sequences of ``shards`` from ``cursor`` on."""

    spec: RunSpec
    cursor: Cursor
    shards: RecordedShards


def shards_of_spec(spec: RunSpec) -> RecordedShards:
    """Return the training shards that ``spec`` finds now. Raises ``UserError``."""
    return _shards(spec, fingerprint_of(spec, {"train": open_split(spec, "train")}))


def data_of_step(run: RunDir, step: int) -> StepData:
    """Return what the run read in ``step`` (the first is 1).

    A future step is answered as if there were no more edits. Raises ``UserError`` for a step the run does not have.
    """
    spec, at, cursor, before = _initial(run)
    last = run.live_spec().train.steps
    if not at < step <= last:
        raise UserError(f"step {step}: {run.name} has the steps {at + 1} to {last}")
    kinds = (Edit, Rewind, Start)
    found = scan(run.log_path, *needles(*kinds))
    history = EditHistory.of(event for _, event in found if isinstance(event, kinds))
    shards = None
    while True:
        for edit in pop_due(history.edits, at):
            spec = applied(spec, edit)
            cursor = cursor.at_context(spec.batch.context)
        for start in pop_due(history.starts, at):
            data = _data_of_start(run, spec, start.data.digest)
            cursor = continued(cursor, before or data, data) if start.data.new_segment else cursor
            shards, before = _shards(spec, data), data
        for rewind in pop_due(history.rewinds, at):
            cursor = Cursor.from_dict(rewind.cursor).at_context(spec.batch.context)
        shards = shards or shards_of_spec(spec)  # a run that has not started yet
        if shards.context != spec.batch.context:
            shards = shards.at_context(spec.batch.context)
        if at == step - 1:
            return StepData(spec, cursor, shards)
        changes = [one.step for queue in (history.edits, history.starts, history.rewinds) for one in queue]
        until = min((change for change in changes if change > at), default=step)
        until = min(until, step - 1)
        cursor = shards.order.advance(cursor, (until - at) * spec.batch.sequences)
        at = until


def _data_of_start(run: RunDir, spec: RunSpec, digest: str | None) -> Fingerprint:
    """Return the data that an attempt has read. Raises ``UserError`` where its record is lost and the data is other."""
    if digest and (recorded := recorded_data(run, digest)):
        return recorded
    now = fingerprint_of(spec, open_splits(spec))
    if digest and now.digest != digest:
        raise UserError(f"{run.data_path(digest)}: is lost, and the data has changed since: what was read is not known")
    return now


def _shards(spec: RunSpec, data: Fingerprint) -> RecordedShards:
    root = Path(spec.data.root)
    return RecordedShards(root if data.weights else root / spec.data.phase, data, spec.batch.context)


def _initial(run: RunDir) -> tuple[RunSpec, int, Cursor, Fingerprint | None]:
    """Return the spec, step and cursor that the run started with, and the data of the checkpoint it started from."""
    spec, resume = run.spec(), run.launch().resume
    if not resume:
        return spec, 0, Cursor.start(spec.train.seed, spec.batch.context, spec.data.sources), None
    metadata = checkpoint.metadata(Path(resume))
    cursor = Cursor.from_dict(metadata.get("cursor")).at_context(spec.batch.context)
    return spec, int(metadata["step"]), cursor, checkpoint_data(Path(resume))
