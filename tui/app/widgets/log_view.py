"""The events of a run, newest at the bottom, in plain words; scrolled and searched back to the first of them."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import ClassVar

from textual import events, on, work
from textual.message import Message
from textual.worker import get_current_worker

from tui.app.state import log_buffer
from tui.app.state.log_buffer import Go, LogBuffer, LogLine, LogPage, matches
from tui.app.widgets.canvas import Canvas, Row
from tui.text.ellipsis import clip


class LogView(Canvas, can_focus=True):
    """Shows what ``add`` is told, and reads what came before it from the log at ``path``."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *("log--time", "log--plain", "log--good", "log--warn", "log--bad", "log--match", "log--found", "log--note"),
    }

    class Read(Message):
        """A page has been read. ``found`` is the offset of the line that was looked for."""

        def __init__(self, page: LogPage, way: str, found: int | None = None) -> None:
            super().__init__()
            self.page, self.way, self.found = page, way, found

    class NotFound(Message):
        """No more lines match."""

    def __init__(self, path: Path, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.buffer = LogBuffer()
        self.search_words: tuple[str, ...] = ()
        self.filtered = False  # only lines that match are shown
        self._path = path
        self._reading = ""
        self._found: int | None = None  # the offset of the line that was found last
        self._note = ""

    def add(self, entry: LogLine) -> None:
        """A line that has just come."""
        if self._wanted(entry):
            self.buffer.append(entry)

    def open(self, page: LogPage) -> None:
        """The first lines to show: a page that ends with the newest in the file; what was said meanwhile stays."""
        self.buffer.replace(page._replace(lines=[*page.lines, *self.buffer.lines]), 0)
        self.redraw()

    @property
    def newest(self) -> int:
        """The offset of the last line; that of the log's end where there is none."""
        return self.buffer.lines[-1].offset if self.buffer.lines else self._end()

    def _end(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return 0

    @property
    def _lines(self) -> int:
        """How many are read at once: of a log without much to tell they are far apart."""
        return 2 * max(self.size.height, 10)

    def _wanted(self, entry: LogLine) -> bool:
        return not (self.filtered and self.search_words) or matches(entry.text, self.search_words)

    # Scrolling

    def scroll_lines(self, lines: int) -> None:
        """Older lines where ``lines`` > 0."""
        most = max(len(self.buffer.lines) - self.size.height, 0)
        self.buffer.lines_below = max(0, min(self.buffer.lines_below + lines, most))
        self._note = ""
        self._look_beyond()
        self.redraw()

    def scroll_pages(self, pages: int) -> None:
        self.scroll_lines(pages * max(self.size.height - 1, 1))

    def show_newest(self) -> None:
        self._found, self._note = None, ""
        if self.buffer.at_end:
            self.buffer.lines_below = 0
            self.redraw()
        else:
            self._read("end")

    def show_oldest(self) -> None:
        self._read("start")

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.scroll_lines(3)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.scroll_lines(-3)

    def _look_beyond(self) -> None:
        """Read on where the view comes near the end of what is here."""
        buffer, height = self.buffer, self.size.height
        if self._reading:
            return
        if not buffer.at_start and len(buffer.lines) - buffer.lines_below < 2 * height:
            self._read("older")
        elif not buffer.at_end and buffer.lines_below < height:
            self._read("newer")

    def _read(self, way: str) -> None:
        self._reading = way
        entries = self.buffer.lines
        self._page(way, entries[0].offset if entries else self._end(), entries[-1].offset + 1 if entries else 0)

    @work(thread=True, exclusive=True, group="log")
    def _page(self, way: str, first: int, last: int) -> None:
        go, count, size = _going(), self._lines, self._end()
        if way == "older":
            page = log_buffer.read_before(self._path, first, count, self._wanted, go)
        elif way == "newer":
            page = log_buffer.read_after(self._path, last, size, count, self._wanted, go)
        elif way == "start":
            page = log_buffer.read_after(self._path, 0, size, count, self._wanted, go)._replace(at_start=True)
        else:
            page = log_buffer.read_before(self._path, size, count, self._wanted, go)._replace(at_end=True)
        if go():
            self.post_message(self.Read(page, way))

    @on(Read)
    def _take(self, message: Read) -> None:
        buffer, page, self._reading, self._note = self.buffer, message.page, "", ""
        if message.way == "older":
            buffer.prepend(page)
        elif message.way == "newer":
            buffer.extend(page)
        elif message.found is not None:
            buffer.replace(page, 0)
            self._show_line(next(i for i, e in enumerate(buffer.lines) if e.offset == message.found))
        else:
            buffer.replace(page, len(page.lines) - self.size.height if message.way == "start" else 0)
        self.redraw()

    # Searching

    def search(self, text: str) -> None:
        """Look for the newest line with all words of ``text``; nothing ends the search."""
        self.search_words = tuple(text.lower().split())
        self._found = None
        if self.filtered or not self.search_words:
            self.filtered = self.filtered and bool(self.search_words)
            self._read("end")
        else:
            self.find(-1)

    def toggle_filter(self) -> None:
        """Show only the lines that match, or all again."""
        self.filtered = not self.filtered and bool(self.search_words)
        self._found = None
        self._read("end")

    def find(self, step: int) -> None:
        """Go to the next line that matches: older for -1, newer for 1."""
        if not self.search_words:
            return
        entries = self.buffer.lines
        here = next((i for i, e in enumerate(entries) if e.offset == self._found), None)
        start = len(entries) - self.buffer.lines_below - 1 if here is None else here + step
        index = self.buffer.find(self.search_words, start, step)
        if index is not None:
            self._found, self._note = entries[index].offset, ""
            self._show_line(index)
            self._look_beyond()
            self.redraw()
        elif (self.buffer.at_start if step < 0 else self.buffer.at_end) or not entries:
            self.post_message(self.NotFound())
        else:
            self._note, self._reading = "searching …", "found"
            self.redraw()
            self._search(step, entries[0].offset if step < 0 else entries[-1].offset + 1, self.search_words)

    @work(thread=True, exclusive=True, group="log")
    def _search(self, step: int, at: int, query: tuple[str, ...]) -> None:
        go = _going()
        size = self._end()
        if step < 0:
            found = log_buffer.read_before(self._path, at, 1, partial(_holds, query), go)
        else:
            found = log_buffer.read_after(self._path, at, size, 1, partial(_holds, query), go)
        if not go():
            return
        if not found.lines:
            self.post_message(self.NotFound())
            return
        match = found.lines[-1 if step < 0 else 0]
        above = log_buffer.read_before(self._path, match.offset, self._lines, self._wanted, go)
        below = log_buffer.read_after(self._path, match.offset, size, self._lines, self._wanted, go)
        if go():
            page = LogPage(above.lines + below.lines, above.at_start, below.at_end)
            self.post_message(self.Read(page, "found", match.offset))

    @on(NotFound)
    def _none(self) -> None:
        self._note, self._reading = f"no other line has: {' '.join(self.search_words)}", ""
        self.redraw()

    def _show_line(self, index: int) -> None:
        """Scroll so that a line is in view, in its middle where it was not."""
        self._found = self.buffer.lines[index].offset
        height, count = self.size.height, len(self.buffer.lines)
        bottom = count - self.buffer.lines_below
        if not bottom - height + 1 <= index < bottom - 1:
            self.buffer.lines_below = max(0, min(count - index - height // 2 - 1, count - height))

    # Drawing

    def draw(self, width: int, height: int) -> list[Row]:
        buffer = self.buffer
        end = len(buffer.lines) - buffer.lines_below
        rows = [self._line(entry, width) for entry in buffer.lines[max(0, end - height) : end]]
        note = self._note
        if not note and (buffer.lines_below or not buffer.at_end):
            note = "older lines · G: the newest"
        if not note and self.filtered:
            note = f"only lines with: {' '.join(self.search_words)} · w: all lines" if not rows else ""
        if note:
            rows[height - 1 :] = [[(clip(f" {note}", width), "log--note")]]
        return rows

    def _line(self, entry: LogLine, width: int) -> Row:
        today = time.localtime()[:3] == time.localtime(entry.time)[:3]
        stamp = time.strftime(" %H:%M:%S " if today else " %d %b %H:%M ", time.localtime(entry.time))
        here = "log--found" if entry.offset == self._found else "log--time"
        text = clip(entry.text, width - len(stamp))
        return [(stamp, here), *_highlighted(text, self.search_words, f"log--{entry.tone}")]


def _going() -> Go:
    """Whether the worker that asks should go on; another look at the log takes its place."""
    worker = get_current_worker()
    return lambda: not worker.is_cancelled


def _holds(query: tuple[str, ...], entry: LogLine) -> bool:
    return matches(entry.text, query)


def _highlighted(text: str, words: tuple[str, ...], style: str) -> Row:
    """``text`` with every occurrence of ``words`` (in small letters) in the style of a match."""
    small = text.lower()
    if len(small) != len(text):  # a letter that is two as a small one
        return [(text, style)]
    marked = [False] * len(text)
    for word in words:
        at = small.find(word)
        while at >= 0:
            marked[at : at + len(word)] = [True] * len(word)
            at = small.find(word, at + 1)
    row: Row = []
    begin = 0
    for i in range(1, len(text) + 1):
        if i == len(text) or marked[i] != marked[begin]:
            row.append((text[begin:i], f"{style} log--match" if marked[begin] else style))
            begin = i
    return row
