"""The lines of a run's log that a person can scroll through: a bounded part of them, and pages read from the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from engine.events.reverse_reader import events_before, events_from
from tui.text import event_text

KEPT = 1000  # lines; twice as many where more are read


class Entry(NamedTuple):
    """A line: the offset of its record, unix seconds, a sentence and its tone (plain, good, warn or bad)."""

    at: int
    t: float
    text: str
    tone: str


class Page(NamedTuple):
    """Some lines in order, and whether they reach the first and the last line there is."""

    entries: list[Entry]
    first: bool
    last: bool


Keep = Callable[[Entry], bool]
Go = Callable[[], bool]


def matches(text: str, query: tuple[str, ...]) -> bool:
    """Whether every word of a search (in small letters) is in ``text``."""
    small = text.lower()
    return all(word in small for word in query)


def entry(at: int, record: dict[str, Any]) -> Entry | None:
    told = event_text.tell(record)
    return None if told is None else Entry(at, float(record.get("t") or 0), *told)


def before(path: Path, at: int, count: int, keep: Keep, go: Go = lambda: True, most: int = 1 << 62) -> Page:
    """``count`` lines that ``keep`` wants, or a few more, before offset ``at``, from at most ``most`` bytes of the log.

    Ends early where ``go`` says so.
    """
    entries: list[Entry] = []
    begin = at
    for begin, events in events_before(path, at):
        entries += [e for pair in events if (e := entry(*pair)) is not None and keep(e)]
        if len(entries) >= count or at - begin >= most or not go():
            break
    return Page(entries[::-1], begin <= 0, False)


def behind(path: Path, start: int, end: int, count: int, keep: Keep, go: Go = lambda: True) -> Page:
    """As ``before``, from ``start`` up to ``end``."""
    entries: list[Entry] = []
    for reached, events in events_from(path, start, end):
        entries += [e for pair in events if (e := entry(*pair)) is not None and keep(e)]
        if len(entries) >= count or not go():
            return Page(entries, False, reached >= end)
    return Page(entries, False, True)


class LogLines:
    """A part of the lines without holes. ``back`` is how many of them stand below the view."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.first = False  # it begins with the first line there is
        self.last = True  # it ends with the newest: what comes is added
        self.back = 0

    def add(self, new: Entry) -> None:
        """A line that has just come; the view stays where it is while it is scrolled back."""
        if not self.last:
            return
        self.entries.append(new)
        if self.back:
            self.back += 1
        if len(self.entries) <= 2 * KEPT:
            return
        if self.back < KEPT:
            del self.entries[:KEPT]
            self.first = False
        else:  # someone reads far above: let go of the newest, the file has them
            self._shorten()

    def put(self, page: Page, back: int) -> None:
        """Another part in place of this one."""
        self.entries, self.first, self.last = list(page.entries), page.first, page.last
        self.back = max(0, min(back, len(self.entries)))

    def older(self, page: Page) -> None:
        self.entries[:0] = page.entries
        self.first = page.first
        self._shorten()

    def newer(self, page: Page) -> None:
        self.entries += page.entries
        self.back += len(page.entries)
        self.last = page.last
        drop = min(len(self.entries) - 2 * KEPT, len(self.entries) - self.back - KEPT)
        if drop > 0:
            del self.entries[:drop]
            self.first = False

    def _shorten(self) -> None:
        drop = min(len(self.entries) - 2 * KEPT, self.back)
        if drop > 0:
            del self.entries[-drop:]
            self.back -= drop
            self.last = False

    def found(self, query: tuple[str, ...], start: int, step: int) -> int | None:
        """The first line from index ``start`` on, going by ``step`` (1 or -1), that matches."""
        return next((i for i in self._from(start, step) if matches(self.entries[i].text, query)), None)

    def _from(self, start: int, step: int) -> Iterator[int]:
        i = start
        while 0 <= i < len(self.entries):
            yield i
            i += step
