"""Indexes the log of a run: the series for charts and the state, up to an offset of the log.

The series are cached in ``history.bin``, the state in ``state.json``. So opening a run reads only the records that
came after, however long its log is.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from engine.events import history_file
from engine.events.history import History
from engine.events.log import Tail
from engine.events.run_dir import RunDir
from engine.events.status_updates import update_status_by_all
from engine.events.types import Event

SAVE_EVERY = 2 << 20  # bytes of log between saves; reading so many takes about 50 ms


class LogIndex:
    """``history`` and ``state`` of the log before ``offset``; ``poll`` advances them.

    ``warnings`` describe for the user what was found damaged on opening.
    """

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.cache: Path = run.path / "history.bin"
        self.warnings: list[str] = []
        self.state = run.state()
        if self.state.damage:
            self.warnings.append(self.state.damage)
        self.state.damage = self.state.seen = None  # from here on it is kept up to date
        self._tail = Tail(run.log_path)
        self._saved = self._history_offset = 0
        self.history = History(run.log_path)
        try:
            self.history, self._history_offset = history_file.load(self.cache, run.log_path)
        except FileNotFoundError:
            pass
        except (OSError, history_file.InvalidCache) as error:
            self.warnings.append(f"history.bin: {error}; rebuilt from the log")
        self._saved = self._history_offset
        self._state_offset = self.state.at
        if self._state_offset > self._tail.size():
            self._state_offset = 0  # the state belongs to another log
        self._tail.offset = min(self._history_offset, self._state_offset)

    @property
    def offset(self) -> int:
        return self._tail.offset

    def catch_up(self) -> None:
        """Read to the end of the log; warn about damaged lines."""
        while self.poll():
            pass
        if damaged := self._tail.damaged:
            many = "1 damaged line" if len(damaged) == 1 else f"{len(damaged)} or more damaged lines"
            self.warnings.append(f"events.jsonl: skipped {many}, the first at byte {damaged[0]}")

    def poll(self) -> list[tuple[int, Event]]:
        """Add the next chunk of new records to the index and return them."""
        events = self._tail.poll()
        if not events:
            return events
        if events[0][0] >= self._history_offset:
            self.history.add_events(events)
        elif events[-1][0] >= self._history_offset:
            self.history.add_events([pair for pair in events if pair[0] >= self._history_offset])
        update_status_by_all(self.state, events, self._state_offset)
        self._history_offset = max(self._history_offset, self.offset)
        self._state_offset = self.state.at = max(self._state_offset, self.offset)
        return events

    def has_grown(self) -> bool:
        """Return whether the log has data that ``poll`` has not read; costs one ``stat``."""
        return self._tail.has_grown()

    def sync(self) -> None:
        """Sync the log to disk. Blocks."""
        self._tail.sync()

    def save_if_due(self) -> None:
        if self.offset - self._saved >= SAVE_EVERY:
            self.save()

    def save(self) -> None:
        """Write the cache. An error is ignored: the log is then read again, which only takes time."""
        if self.offset == self._saved or self._history_offset != self.offset:
            return
        self._saved = self.offset
        with contextlib.suppress(OSError):
            history_file.save(self.cache, self.run.log_path, self.history, self.offset)

    def close(self) -> None:
        self._tail.close()
