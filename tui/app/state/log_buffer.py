"""The lines of a run's log that a person can scroll through: a bounded part of them, and pages read from the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from engine.events.reverse_reader import events_before, events_from
from tui.text import event_text

CAPACITY = 1000  # lines; twice as many where more are read


class LogLine(NamedTuple):
    """A line: the offset of its record, unix seconds, a sentence and its tone (plain, good, warn or bad)."""

    offset: int
    time: float
    text: str
    tone: str


class LogPage(NamedTuple):
    """Some lines in order, and whether they reach the first and the last line there is."""

    lines: list[LogLine]
    at_start: bool
    at_end: bool


Keep = Callable[[LogLine], bool]
Go = Callable[[], bool]


def matches(text: str, query: tuple[str, ...]) -> bool:
    """Whether every word of a search (in small letters) is in ``text``."""
    small = text.lower()
    return all(word in small for word in query)


def to_line(at: int, record: dict[str, Any]) -> LogLine | None:
    told = event_text.describe(record)
    return None if told is None else LogLine(at, float(record.get("t") or 0), *told)


def read_before(path: Path, at: int, count: int, keep: Keep, go: Go = lambda: True, most: int = 1 << 62) -> LogPage:
    """``count`` lines that ``keep`` wants, or a few more, before offset ``at``, from at most ``most`` bytes of the log.

    Ends early where ``go`` says so.
    """
    entries: list[LogLine] = []
    begin = at
    for begin, events in events_before(path, at):
        entries += [e for pair in events if (e := to_line(*pair)) is not None and keep(e)]
        if len(entries) >= count or at - begin >= most or not go():
            break
    return LogPage(entries[::-1], begin <= 0, False)


def read_after(path: Path, start: int, end: int, count: int, keep: Keep, go: Go = lambda: True) -> LogPage:
    """As ``before``, from ``start`` up to ``end``."""
    entries: list[LogLine] = []
    for reached, events in events_from(path, start, end):
        entries += [e for pair in events if (e := to_line(*pair)) is not None and keep(e)]
        if len(entries) >= count or not go():
            return LogPage(entries, False, reached >= end)
    return LogPage(entries, False, True)


class LogBuffer:
    """A part of the lines without holes. ``back`` is how many of them stand below the view."""

    def __init__(self) -> None:
        self.lines: list[LogLine] = []
        self.at_start = False  # it begins with the first line there is
        self.at_end = True  # it ends with the newest: what comes is added
        self.lines_below = 0

    def append(self, new: LogLine) -> None:
        """A line that has just come; the view stays where it is while it is scrolled back."""
        if not self.at_end:
            return
        self.lines.append(new)
        if self.lines_below:
            self.lines_below += 1
        if len(self.lines) <= 2 * CAPACITY:
            return
        if self.lines_below < CAPACITY:
            del self.lines[:CAPACITY]
            self.at_start = False
        else:  # someone reads far above: let go of the newest, the file has them
            self._shorten()

    def replace(self, page: LogPage, back: int) -> None:
        """Another part in place of this one."""
        self.lines, self.at_start, self.at_end = list(page.lines), page.at_start, page.at_end
        self.lines_below = max(0, min(back, len(self.lines)))

    def prepend(self, page: LogPage) -> None:
        self.lines[:0] = page.lines
        self.at_start = page.at_start
        self._shorten()

    def extend(self, page: LogPage) -> None:
        self.lines += page.lines
        self.lines_below += len(page.lines)
        self.at_end = page.at_end
        drop = min(len(self.lines) - 2 * CAPACITY, len(self.lines) - self.lines_below - CAPACITY)
        if drop > 0:
            del self.lines[:drop]
            self.at_start = False

    def _shorten(self) -> None:
        drop = min(len(self.lines) - 2 * CAPACITY, self.lines_below)
        if drop > 0:
            del self.lines[-drop:]
            self.lines_below -= drop
            self.at_end = False

    def find(self, query: tuple[str, ...], start: int, step: int) -> int | None:
        """The first line from index ``start`` on, going by ``step`` (1 or -1), that matches."""
        return next((i for i in self._from(start, step) if matches(self.lines[i].text, query)), None)

    def _from(self, start: int, step: int) -> Iterator[int]:
        i = start
        while 0 <= i < len(self.lines):
            yield i
            i += step
