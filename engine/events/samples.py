"""Reads the samples of a run from its log: those that count, where a restart has repeated steps."""

from __future__ import annotations

import os
from pathlib import Path

from engine.events.reverse_reader import events_from
from engine.events.types import Event, Sample, Start


class Samples:
    """``found`` has the samples in the order of their steps, as of the last ``poll``."""

    def __init__(self, path: Path) -> None:
        self.found: list[Sample] = []
        self._path = path
        self._offset = 0

    def poll(self) -> bool:
        """Read what was logged since the last call; return whether that changed ``found``. Raise ``OSError``."""
        try:
            end = os.stat(self._path).st_size
        except FileNotFoundError:
            return False
        before = self.found
        if end < self._offset:  # the log was restored
            self.found, self._offset = [], 0
        for offset, events in events_from(self._path, self._offset, end):
            self._offset = offset
            for _, event in events:
                self._add(event)
        return self.found != before

    def of_step(self, step: int) -> list[Sample]:
        return [sample for sample in self.found if sample.step == step]

    @property
    def steps(self) -> list[int]:
        """The steps that have samples, each once."""
        return list(dict.fromkeys(sample.step for sample in self.found))

    def _add(self, event: Event) -> None:
        match event:
            case Sample():
                # Without the start record of a restart, the falling step says that it has begun.
                self.found = [*(one for one in self.found if one.step <= event.step), event]
            case Start():
                last = -1 if event.resumed_from is None else event.resumed_from
                self.found = [one for one in self.found if one.step <= last]
