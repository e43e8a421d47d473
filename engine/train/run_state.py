"""Holds what a run currently is and where it is in its data: the spec with its live edits, the shards, the cursor."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

from data.continuing import continued
from data.cursor import Cursor
from data.dataset import PackedBinDataset
from data.documents import count_targets
from data.fingerprint import Fingerprint
from data.splits import document_end, fingerprint_of, open_split, open_splits
from data.text_bytes import bytes_per_token, miscounts
from engine.train.backends.backend import Batch
from engine.train.edit_history import EditHistory, pop_due
from engine.train.edits import applied
from engine.train.read_ahead import ReadAhead
from engine.train.work_clock import WorkClock
from profiles.spec import AUTO, RunSpec


class RunState:
    """``spec`` includes the live edits; ``cursor`` is the first sequence of the next step.

    ``document_end`` is the id that ends a document where none may see another. ``data`` identifies the shards. They are
    those that were there at the start, whatever comes to their folder later.
    """

    def __init__(self, spec: RunSpec) -> None:
        """Open the data. Raises ``UserError``."""
        self.spec = spec
        self.clock = WorkClock()
        self._splits = open_splits(spec)
        self.document_end = document_end(spec)
        self.data = fingerprint_of(spec, self._splits)
        self._ahead = ReadAhead(spec.data.workers)
        self._val_batches: dict[str, list[Batch]] | None = None
        self._val_rows = spec.batch.micro
        self.cursor: Cursor = self._splits["train"].initial_cursor()

    def read_batch(self) -> tuple[Batch, Cursor]:
        """Return the sequences of the next step, (sequences, context + 1); also the cursor behind them.

        ``data.workers`` threads have read them while the step before computed, unless an edit or a rewind came since.
        """
        return self._ahead.read_batch(self._splits["train"], self.cursor, self.spec.batch.sequences)

    def count_targets(self, batch: Batch) -> int:
        """Return how many predictions of a batch count for its loss."""
        return count_targets(batch, self.document_end)

    def close(self) -> None:
        """End the threads that read ahead."""
        self._ahead.close()

    def settle_precision(self, precision: str) -> None:
        """Take in what "auto" is on this device, so that a checkpoint has it and no resume chooses again."""
        if self.spec.train.precision == AUTO:
            train, key = replace(self.spec.train, precision=precision), "train.precision"
            self.spec = replace(self.spec, train=train, resolved=tuple(dict.fromkeys((*self.spec.resolved, key))))

    def set_spec(self, spec: RunSpec) -> None:
        """Go on as ``spec`` says. Another context windows the data differently: a new segment of the cursor."""
        before, self.spec = self.spec, spec
        if spec.batch.context != before.batch.context:
            self._splits = {split: data.at_context(spec.batch.context) for split, data in self._splits.items()}
            self._val_batches, self._val_rows = None, spec.batch.micro
            self.seek(self.cursor)

    def restore(self, cursor: Cursor, history: EditHistory, step: int) -> None:
        """Go to where the checkpoint of ``step`` was taken.

        Its cursor includes the edits before that step, but of those at the step only what was applied when it was
        written; applying them again changes nothing.
        """
        self.replay_edits(history, step - 1)
        self.seek(cursor)
        self.replay_edits(history, step)

    def seek(self, cursor: Cursor) -> None:
        """Go on reading at ``cursor``."""
        self.cursor = cursor.at_context(self.spec.batch.context)

    def continue_from(self, before: Fingerprint) -> None:
        """Go on with other data than that read so far, ``before``: what is new in its own epoch."""
        self.cursor = continued(self.cursor, before, self.data)

    def replay_edits(self, history: EditHistory, step: int) -> bool:
        """Apply the edits that an earlier attempt made up to ``step``; return whether there were any."""
        edits = pop_due(history.edits, step)
        for edit in edits:
            self.set_spec(applied(self.spec, edit))
        return bool(edits)

    def replay_rewinds(self, history: EditHistory, step: int) -> bool:
        """Skip the data that an earlier attempt skipped at ``step``; return whether there was any."""
        rewinds = pop_due(history.rewinds, step)
        for rewind in rewinds:
            self.seek(Cursor.from_dict(rewind.cursor))
        return bool(rewinds)

    def to_facts(self) -> dict[str, Any]:
        """What a checkpoint stores of it, as JSON values."""
        return {
            "spec": self.spec.to_dict(),
            "cursor": self.cursor.to_dict(),
            "tokens": self.cursor.tokens,
            "data": self.data.to_dict(),
        }

    def miscounts(self) -> list[str]:
        """Return a line for each count in ``dataset.json`` that is not that of the shards. Raises ``UserError``."""
        return [*miscounts(self.spec, self._splits).values()]

    @property
    def val_batches(self) -> dict[str, list[Batch]]:
        """The validation windows of each source, in batches that fit where a micro-batch does.

        Their size is that of the micro with which the data was opened: an edit of it must not change a validation loss
        even in its last bit. Read at the first call: a run that does not validate needs none.
        """
        if self._val_batches is None:
            windows = self._val_split().read_first(self.spec.train.val_sequences)
            rows = self._val_rows
            self._val_batches = {
                source: [of_source[i : i + rows] for i in range(0, len(of_source), rows)]
                for source, of_source in windows.items()
            }
        return self._val_batches

    @cached_property
    def val_bytes_per_token(self) -> dict[str, float | None]:
        """The bytes of validation text per token of each source; None where they are not known."""
        return bytes_per_token(self.spec, "val", self._val_split())

    def _val_split(self) -> PackedBinDataset:
        return self._splits.get("val") or open_split(self.spec, "val")  # the run may not have validated at its start
