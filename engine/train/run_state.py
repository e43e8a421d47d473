"""What a run is by now and where it stands in its data: the spec with its live edits, and the cursor."""

from __future__ import annotations

from data.cursor import Cursor
from data.splits import open_split
from engine.train.backends.backend import Batch
from engine.train.edit_history import EditHistory, due
from engine.train.edits import applied
from profiles.spec import RunSpec


class RunState:
    """``spec`` follows the live edits; ``cursor`` is the next step's first sequence."""

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self._val_batches: list[Batch] | None = None
        self._open()
        self.cursor: Cursor = self._data.initial_cursor()

    def take(self) -> tuple[Batch, Cursor]:
        """The sequences of the next step, (sequences, context + 1), and the cursor behind them."""
        return self._data.read_batch(self.cursor, self.spec.batch.sequences)

    def become(self, spec: RunSpec) -> None:
        """Go on as ``spec`` says. Another context is another way to cut the data: a new segment of the cursor."""
        before, self.spec = self.spec, spec
        if spec.batch.context != before.batch.context:
            self._open()
            self.go_to(self.cursor)

    def restore(self, cursor: Cursor, past: EditHistory, step: int) -> None:
        """Stand where the checkpoint of ``step`` did. It knows of the edits before it, but of those at its own step
        only what was there when it was written; made once more they change nothing."""
        self.repeat_edits(past, step - 1)
        self.go_to(cursor)
        self.repeat_edits(past, step)

    def go_to(self, cursor: Cursor) -> None:
        self.cursor = cursor.at_context(self.spec.batch.context)

    def repeat_edits(self, past: EditHistory, step: int) -> None:
        """Make the edits again that an earlier attempt made up to ``step``: spec.json says only how the run began."""
        for record in due(past.edits, step):
            self.become(applied(self.spec, record))

    def repeat_rewinds(self, past: EditHistory, step: int) -> bool:
        """Skip again what was skipped at ``step``; whether anything was."""
        rewinds = due(past.rewinds, step)
        for record in rewinds:
            self.go_to(Cursor.from_dict(record["cursor"]))
        return bool(rewinds)

    @property
    def val_batches(self) -> list[Batch]:
        """The validation windows, in batches that fit where a micro-batch does.

        Their size is that of the micro by which the data was opened: an edit of it must not change what a validation
        loss is, to the last bit. Read at the first call: a run that does not validate needs none.
        """
        if self._val_batches is None:
            windows = open_split(self.spec, "val").read_first(self.spec.train.val_sequences)
            self._val_batches = [windows[i : i + self._val_rows] for i in range(0, len(windows), self._val_rows)]
        return self._val_batches

    def _open(self) -> None:
        self._data = open_split(self.spec, "train")
        self._val_rows = self.spec.batch.micro
        self._val_batches = None
