"""What a run's log says up to an offset: the series and the summary.

Both are kept beside the log, the series in ``history.bin`` and the summary in ``state.json``, so that only what has
come since is read when a run is opened, however long its log is.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from engine.events import history_file
from engine.events.history import History
from engine.events.log import Record, Tail
from engine.events.run_dir import RunDir
from engine.events.summary import update_summary

SAVE_EVERY = 2 << 20  # bytes of log that a reader may have to read again: about 50 ms


class LogIndex:
    """``history`` and ``summary`` of everything before offset ``at``; ``poll`` takes them further.

    ``warnings`` are the sentences a person should hear about what was found damaged when it was opened.
    """

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.cache: Path = run.path / "history.bin"
        self.warnings: list[str] = []
        self.summary: dict[str, Any] = run.state()
        self._tail = Tail(run.log_path)
        self._saved = self._history_at = 0
        self.history = History(run.log_path)
        try:
            self.history, self._history_at = history_file.load(self.cache, run.log_path)
        except FileNotFoundError:
            pass
        except (OSError, history_file.Unusable) as error:
            self.warnings.append(f"history.bin: {error}; made again from the log")
        self._saved = self._history_at
        self._summary_at = int(self.summary.get("at") or 0)
        if self._summary_at > self._tail.size():
            self._summary_at = 0  # the state is not this log's
        self._tail.offset = min(self._history_at, self._summary_at)

    @property
    def offset(self) -> int:
        return self._tail.offset

    def catch_up(self) -> None:
        """Read to the end of the log; what is damaged in what was read becomes a note."""
        while self.poll():
            pass
        if damaged := self._tail.damaged:
            many = "1 line is" if len(damaged) == 1 else f"{len(damaged)} lines or more are"
            self.warnings.append(f"events.jsonl: {many} damaged and left out, the first at byte {damaged[0]}")

    def poll(self) -> list[tuple[int, Record]]:
        """The records that have come since the last call, a chunk of them, taken in."""
        found = self._tail.poll()
        if not found:
            return found
        if found[0][0] >= self._history_at:
            self.history.add_records(found)
        elif found[-1][0] >= self._history_at:
            self.history.add_records([pair for pair in found if pair[0] >= self._history_at])
        for at, record in found:
            if at >= self._summary_at:
                update_summary(self.summary, record)
        self._history_at = max(self._history_at, self.offset)
        self._summary_at = self.summary["at"] = max(self._summary_at, self.offset)
        return found

    def has_grown(self) -> bool:
        """Whether there may be something to ``poll``: one ``stat``."""
        return self._tail.has_grown()

    def sync(self) -> None:
        """Ask for the log's bytes to reach the disk. Blocks."""
        self._tail.sync()

    def save_if_due(self) -> None:
        if self.offset - self._saved >= SAVE_EVERY:
            self.save()

    def save(self) -> None:
        """Write the cache. Where that fails the log is read again some day: nothing is lost but time."""
        if self.offset == self._saved or self._history_at != self.offset:
            return
        self._saved = self.offset
        with contextlib.suppress(OSError):
            history_file.save(self.cache, self.run.log_path, self.history, self.offset)

    def close(self) -> None:
        self._tail.close()
