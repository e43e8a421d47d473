"""Holds a bounded part of a run's log lines for scrolling, and reads further pages from the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from engine.events.reverse_reader import events_before, events_from
from engine.events.types import Event, Memory, Sample
from tui.text import event_text

CAPACITY = 1000  # lines; twice as many while a user reads older ones


class LogLine(NamedTuple):
    """A line: the offset of its record, unix seconds, text and tone (plain, good, warn or bad).

    Consecutive lines with the same ``folds``, if it is not empty, are one: the newest, and how many there were. Of a
    ``long`` text only as much is shown as fits into one row, until it is opened.
    """

    offset: int
    time: float
    text: str
    tone: str
    folds: str = ""
    times: int = 1
    long: bool = False

    @property
    def shown(self) -> str:
        return f"{self.text} ({self.times} such lines)" if self.times > 1 else self.text


class LogPage(NamedTuple):
    """Consecutive lines; whether they include the first line of the log and the newest."""

    lines: list[LogLine]
    at_start: bool
    at_end: bool


Filter = Callable[[LogLine], bool]
KeepReading = Callable[[], bool]


def matches(text: str, words: tuple[str, ...]) -> bool:
    """Return whether ``text`` contains every word (in lower case)."""
    lower = text.lower()
    return all(word in lower for word in words)


def to_line(offset: int, event: Event) -> LogLine | None:
    """Return the line for an event; None if it is only shown in charts."""
    sentence = event_text.describe(event)
    if sentence is None:
        return None
    folds = "memory" if isinstance(event, Memory) else ""
    return LogLine(offset, event.t, *sentence, folds, long=isinstance(event, Sample))


def fold(lines: Sequence[LogLine]) -> list[LogLine]:
    """Return ``lines`` with repeats of a line folded into one."""
    found: list[LogLine] = []
    for line in lines:
        if found and line.folds and line.folds == found[-1].folds:
            line = line._replace(times=line.times + found.pop().times)
        found.append(line)
    return found


def read_before(path: Path, end: int, count: int, wanted: Filter, keep_reading: KeepReading = lambda: True) -> LogPage:
    """Read the last ``count`` lines (or a few more) before offset ``end`` that pass a filter.

    Stops early when ``keep_reading`` returns false.
    """
    lines: list[LogLine] = []
    at_start = end <= 0
    for begin, events in events_before(path, end):
        at_start = begin <= 0
        lines += [line for event in events if (line := to_line(*event)) is not None and wanted(line)]
        if len(lines) >= count or not keep_reading():
            break
    return LogPage(lines[::-1], at_start, False)


def read_after(
    path: Path, start: int, end: int, count: int, wanted: Filter, keep_reading: KeepReading = lambda: True
) -> LogPage:
    """Read the first ``count`` lines (or a few more) from offset ``start`` up to ``end`` that pass a filter."""
    lines: list[LogLine] = []
    for reached, events in events_from(path, start, end):
        lines += [line for event in events if (line := to_line(*event)) is not None and wanted(line)]
        if len(lines) >= count or not keep_reading():
            return LogPage(lines, False, reached >= end)
    return LogPage(lines, False, True)


class LogBuffer:
    """Consecutive lines of the log. ``lines_below`` is the number of lines below the visible ones."""

    def __init__(self) -> None:
        self.lines: list[LogLine] = []
        self.at_start = False  # it includes the first line of the log
        self.at_end = True  # it includes the newest line: new lines are appended
        self.lines_below = 0

    def append(self, line: LogLine) -> None:
        """Add a new line; while scrolled back, the visible lines stay the same."""
        if not self.at_end:
            return
        if self.lines and line.folds and line.folds == self.lines[-1].folds:
            self.lines[-1] = line._replace(times=self.lines[-1].times + 1)
            return
        self.lines.append(line)
        if self.lines_below:
            self.lines_below += 1
        if len(self.lines) <= 2 * CAPACITY:
            return
        if self.lines_below < CAPACITY:
            del self.lines[:CAPACITY]
            self.at_start = False
        else:  # a user reads far above: drop the newest, which can be read from the file again
            self._drop_newest()

    def replace(self, page: LogPage, lines_below: int) -> None:
        self.lines, self.at_start, self.at_end = fold(page.lines), page.at_start, page.at_end
        self.lines_below = max(0, min(lines_below, len(self.lines)))

    def prepend(self, page: LogPage) -> None:
        self.lines[:0] = fold(page.lines)
        self.at_start = page.at_start
        self._drop_newest()

    def extend(self, page: LogPage) -> None:
        new = fold(page.lines)
        self.lines += new
        self.lines_below += len(new)
        self.at_end = page.at_end
        excess = min(len(self.lines) - 2 * CAPACITY, len(self.lines) - self.lines_below - CAPACITY)
        if excess > 0:
            del self.lines[:excess]
            self.at_start = False

    def _drop_newest(self) -> None:
        """Drop the lines beyond twice the capacity, but none that is visible."""
        excess = min(len(self.lines) - 2 * CAPACITY, self.lines_below)
        if excess > 0:
            del self.lines[-excess:]
            self.lines_below -= excess
            self.at_end = False

    def find(self, words: tuple[str, ...], start: int, step: int) -> int | None:
        """Return the index of the first match from ``start`` on, in the direction of ``step`` (1 or -1)."""
        return next((i for i in self._indices(start, step) if matches(self.lines[i].text, words)), None)

    def _indices(self, start: int, step: int) -> Iterator[int]:
        i = start
        while 0 <= i < len(self.lines):
            yield i
            i += step
