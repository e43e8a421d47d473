"""Prints the records of a run as plain lines."""

from __future__ import annotations

from typing import Any

from tui.text.event_text import describe
from tui.text.format import fixed


class LinePrinter:
    """Prints records as plain lines; of the steps, at most two a second, so that a fast run stays readable."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._due = 0.0

    def __call__(self, record: dict[str, Any]) -> None:
        if record["kind"] == "step":
            last = record["step"] == self._steps
            if record["t"] < self._due and not last:
                return
            self._due = record["t"] + 0.5
            done = f"step {record['step']}/{self._steps}" if self._steps else f"step {record['step']}"
            print(
                f"{done}  loss {fixed(record.get('loss'), 4)}  lr {record.get('lr') or 0:.2e}"
                f"  {fixed(record.get('tok_s'), 0)} tok/s  {record.get('step_s') or 0:.2f} s",
                flush=True,
            )
        elif description := describe(record):
            print(description[0], flush=True)
