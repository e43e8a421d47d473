"""What a run is by now and where it stands in its data: the spec with its live edits, and the cursor."""

from __future__ import annotations

from typing import Any

from data.cursor import Cursor
from engine.preflight import open_split
from engine.train.backend import Batch
from engine.train.edits import applied
from engine.train.past import Past, due
from profiles.spec import RunSpec


class Course:
    """``spec`` follows the live edits; ``cursor`` is the next step's first sequence."""

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self._open()
        self.cursor: Cursor = self._data.start()

    def take(self) -> tuple[Batch, Cursor]:
        """The sequences of the next step, (sequences, context + 1), and the cursor behind them."""
        return self._data.take(self.cursor, self.spec.batch.sequences)

    def become(self, spec: RunSpec) -> None:
        """Go on as ``spec`` says. Another context is another way to cut the data: a new segment of the cursor."""
        before, self.spec = self.spec, spec
        if spec.batch.context != before.batch.context:
            self._open()
            self.go_to(self.cursor)

    def go_to(self, cursor: Cursor) -> None:
        self.cursor = cursor.at_context(self.spec.batch.context)

    def repeat_edits(self, past: Past, step: int) -> None:
        """Make the edits again that an earlier attempt made up to ``step``: spec.json says only how the run began."""
        for record in due(past.edits, step):
            self.become(applied(self.spec, record))

    def repeat_rewinds(self, past: Past, step: int) -> bool:
        """Skip again what was skipped at ``step``; whether anything was."""
        rewinds = due(past.rewinds, step)
        for record in rewinds:
            self.go_to(Cursor.from_dict(record["cursor"]))
        return bool(rewinds)

    def _open(self) -> None:
        self._data = open_split(self.spec, "train")
        self.val_batches = _validation(self.spec)


def _validation(spec: RunSpec) -> list[Any]:
    """The validation windows, the same all through the run, in batches that fit where a micro-batch does.

    Their size is that of the first micro: a live edit must not change what a validation loss is, to the last bit.
    """
    if not spec.train.val_every:
        return []
    windows = open_split(spec, "val").first(spec.train.val_sequences)
    return [windows[i : i + spec.batch.micro] for i in range(0, len(windows), spec.batch.micro)]
