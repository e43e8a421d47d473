"""Shows the events of a run as text, newest at the bottom; scrolls and searches back to the first event."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar

from rich.cells import cell_len
from textual import events, on, work
from textual.message import Message
from textual.worker import get_current_worker

from tui.app.state import log_buffer
from tui.app.state.log_buffer import KeepReading, LogBuffer, LogLine, LogPage, matches
from tui.app.widgets.canvas import Canvas, Row
from tui.text.ellipsis import clip, wrap

_OPENS = " Enter opens it whole"  # beside the line that it opens


class LogView(Canvas, can_focus=True):
    """Shows the lines passed to ``add``, and reads older lines from the log at ``path``.

    Lines are wrapped, so that all of them can be read; of a long text, such as a sample, the beginning is shown.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *("log--time", "log--plain", "log--good", "log--warn", "log--bad", "log--match", "log--found", "log--note"),
    }

    class Read(Message):
        """A page has been read. ``part`` says which one; ``found`` is the offset of a search result."""

        def __init__(self, page: LogPage, part: str, found: int | None = None) -> None:
            super().__init__()
            self.page, self.part, self.found = page, part, found

    class NotFound(Message):
        """No more lines match."""

    def __init__(self, path: Path, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.buffer = LogBuffer()
        self.search_words: tuple[str, ...] = ()
        self.filtered = False  # shows only matching lines
        self._path = path
        self._reading = ""  # the part that is being read
        self._found: int | None = None  # offset of the last search result
        self._note = ""

    def add(self, line: LogLine) -> None:
        """Append a new line."""
        if self._is_shown(line):
            self.buffer.append(line)

    def open(self, page: LogPage) -> None:
        """Show a page that ends with the newest line of the file; lines added since it was read stay below it."""
        self.buffer.replace(page._replace(lines=[*page.lines, *self.buffer.lines]), 0)
        self.redraw()

    @property
    def end(self) -> int:
        """The offset of a line that is not in the file: after that of the last line, or the log's end without one."""
        return (self.buffer.lines[-1].offset if self.buffer.lines else self._end()) + 1

    def _end(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return 0

    @property
    def selected(self) -> LogLine | None:
        """The line that a search has found, else the lowest one on screen."""
        lines = self.buffer.lines
        found = next((line for line in lines if line.offset == self._found), None)
        lowest = len(lines) - self.buffer.lines_below - 1
        return found or (lines[lowest] if 0 <= lowest < len(lines) else None)

    @property
    def _page_lines(self) -> int:
        """The number of lines read at once."""
        return 2 * max(self.size.height, 10)

    def _is_shown(self, line: LogLine) -> bool:
        return not (self.filtered and self.search_words) or matches(line.text, self.search_words)

    # Scrolling

    def scroll_lines(self, lines: int) -> None:
        """Scroll towards older lines if ``lines`` > 0."""
        self.buffer.lines_below = max(0, min(self.buffer.lines_below + lines, self._top()))
        self._note = ""
        self._read_ahead()
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

    def _read_ahead(self) -> None:
        """Read another page if the view is near either end of the buffer."""
        buffer, height = self.buffer, self.size.height
        if self._reading:
            return
        if not buffer.at_start and len(buffer.lines) - buffer.lines_below < 2 * height:
            self._read("older")
        elif not buffer.at_end and buffer.lines_below < height:
            self._read("newer")

    def _read(self, part: str) -> None:
        self._reading = part
        lines = self.buffer.lines
        self._read_page(part, lines[0].offset if lines else self._end(), lines[-1].offset + 1 if lines else 0)

    @work(thread=True, exclusive=True, group="log")
    def _read_page(self, part: str, first: int, last: int) -> None:
        keep_reading, count, size = _not_cancelled(), self._page_lines, self._end()
        if part == "older":
            page = log_buffer.read_before(self._path, first, count, self._is_shown, keep_reading)
        elif part == "newer":
            page = log_buffer.read_after(self._path, last, size, count, self._is_shown, keep_reading)
        elif part == "start":
            page = log_buffer.read_after(self._path, 0, size, count, self._is_shown, keep_reading)
            page = page._replace(at_start=True)
        else:
            page = log_buffer.read_before(self._path, size, count, self._is_shown, keep_reading)
            page = page._replace(at_end=True)
        if keep_reading():
            self.post_message(self.Read(page, part))

    @on(Read)
    def _show_page(self, message: Read) -> None:
        buffer, page, self._reading, self._note = self.buffer, message.page, "", ""
        if message.part == "older":
            buffer.prepend(page)
        elif message.part == "newer":
            buffer.extend(page)
        elif message.found is not None:
            buffer.replace(page, 0)
            self._show_line(next(i for i, line in enumerate(buffer.lines) if line.offset == message.found))
        else:
            buffer.replace(page, 0)
            buffer.lines_below = self._top() if message.part == "start" else 0
        self.redraw()

    # Searching

    def search(self, text: str) -> None:
        """Find the newest line with all words of ``text``; an empty text ends the search."""
        self.search_words = tuple(text.lower().split())
        self._found = None
        if self.filtered or not self.search_words:
            self.filtered = self.filtered and bool(self.search_words)
            self._read("end")
        else:
            self.find(-1)

    def toggle_filter(self) -> None:
        """Show only matching lines, or all lines again."""
        self.filtered = not self.filtered and bool(self.search_words)
        self._found = None
        self._read("end")

    def find(self, step: int) -> None:
        """Go to the next matching line: an older one for -1, a newer one for 1."""
        if not self.search_words:
            return
        lines = self.buffer.lines
        current = next((i for i, line in enumerate(lines) if line.offset == self._found), None)
        start = len(lines) - self.buffer.lines_below - 1 if current is None else current + step
        index = self.buffer.find(self.search_words, start, step)
        if index is not None:
            self._found, self._note = lines[index].offset, ""
            self._show_line(index)
            self._read_ahead()
            self.redraw()
        elif (self.buffer.at_start if step < 0 else self.buffer.at_end) or not lines:
            self.post_message(self.NotFound())
        else:
            self._note, self._reading = "searching …", "found"
            self.redraw()
            self._search(step, lines[0].offset if step < 0 else lines[-1].offset + 1, self.search_words)

    @work(thread=True, exclusive=True, group="log")
    def _search(self, step: int, offset: int, words: tuple[str, ...]) -> None:
        keep_reading = _not_cancelled()
        size = self._end()
        if step < 0:
            found = log_buffer.read_before(self._path, offset, 1, partial(_matches, words), keep_reading)
        else:
            found = log_buffer.read_after(self._path, offset, size, 1, partial(_matches, words), keep_reading)
        if not keep_reading():
            return
        if not found.lines:
            self.post_message(self.NotFound())
            return
        match, count = found.lines[-1 if step < 0 else 0], self._page_lines
        above = log_buffer.read_before(self._path, match.offset, count, self._is_shown, keep_reading)
        below = log_buffer.read_after(self._path, match.offset, size, count, self._is_shown, keep_reading)
        if keep_reading():
            page = LogPage(above.lines + below.lines, above.at_start, below.at_end)
            self.post_message(self.Read(page, "found", match.offset))

    @on(NotFound)
    def _show_not_found(self) -> None:
        self._note, self._reading = f"no other line matches: {' '.join(self.search_words)}", ""
        self.redraw()

    def _show_line(self, index: int) -> None:
        """Bring a line into view, in the middle if it was not visible."""
        lines = self.buffer.lines
        self._found = lines[index].offset
        height = self.content_size.height
        end = len(lines) - self.buffer.lines_below
        if not end - self._fitting(reversed(lines[:end])) < index < end - 1:
            below = self._fitting(iter(lines[index + 1 :]), height // 2)
            self.buffer.lines_below = min(len(lines) - index - 1 - below, self._top())

    def _top(self) -> int:
        """Return ``lines_below`` with the oldest line at the top."""
        return max(len(self.buffer.lines) - self._fitting(iter(self.buffer.lines)), 0)

    def _fitting(self, lines: Iterator[LogLine], height: int | None = None) -> int:
        """Return how many of ``lines`` fit into ``height`` rows (None: those of the view, and then at least one)."""
        width, left = self.content_size.width, self.content_size.height if height is None else height
        count = 0
        for line in lines:
            left -= len(self._texts(line, width))
            if left < 0:
                break
            count += 1
        return count if height is not None else max(count, 1)

    # Drawing

    def draw(self, width: int, height: int) -> list[Row]:
        buffer = self.buffer
        rows: list[Row] = []
        for line in reversed(buffer.lines[: len(buffer.lines) - buffer.lines_below]):
            left = height - len(rows)
            if left <= 0:
                break
            # The top line may lose its first rows; the bottom line, if it alone is too long, its last.
            rows[:0] = self._rows_of(line, width, height)[-left:]
        note = self._note
        if not note and (buffer.lines_below or not buffer.at_end):
            note = "older lines · G: newest"
        if not note and self.filtered:
            note = f"no line matches: {' '.join(self.search_words)} · w: all lines" if not rows else ""
        if note:
            rows[height - 1 :] = [[(clip(f" {note}", width), "log--note")]]
        return rows

    def _rows_of(self, line: LogLine, width: int, height: int) -> list[Row]:
        """Return the rows of a line, at most ``height``: the first begins with its time."""
        stamp = _stamp(line)
        stamp_style = "log--found" if line.offset == self._found else "log--time"
        texts = self._texts(line, width)
        if len(texts) > height:
            texts = [*texts[: height - 1], clip(" ".join(texts[height - 1 :]), width - len(stamp))]
        margins = [stamp, *[" " * len(stamp)] * (len(texts) - 1)]
        return [
            [(margin, stamp_style), *_highlighted(text, self.search_words, f"log--{line.tone}")]
            for margin, text in zip(margins, texts, strict=True)
        ]

    def _texts(self, line: LogLine, width: int) -> list[str]:
        """Return the text of a line in the rows that it takes."""
        width -= len(_stamp(line))
        if not line.long or cell_len(line.shown) <= width:
            return wrap(line.shown, width)
        hint = _OPENS if line == self.selected and width > 2 * len(_OPENS) else ""
        return [clip(line.shown, width - len(hint)) + hint]


def _stamp(line: LogLine) -> str:
    """Return the time of a line, with the date if it is not of today."""
    today = time.localtime()[:3] == time.localtime(line.time)[:3]
    return time.strftime(" %H:%M:%S " if today else " %d %b %H:%M ", time.localtime(line.time))


def _not_cancelled() -> KeepReading:
    """Return a function that says whether the current worker may continue; a newer read cancels it."""
    worker = get_current_worker()
    return lambda: not worker.is_cancelled


def _matches(words: tuple[str, ...], line: LogLine) -> bool:
    return matches(line.text, words)


def _highlighted(text: str, words: tuple[str, ...], style: str) -> Row:
    """Return ``text`` with every occurrence of ``words`` (in lower case) in the style of a match."""
    lower = text.lower()
    if len(lower) != len(text):  # a letter whose lower case has two characters
        return [(text, style)]
    marked = [False] * len(text)
    for word in words:
        start = lower.find(word)
        while start >= 0:
            marked[start : start + len(word)] = [True] * len(word)
            start = lower.find(word, start + 1)
    row: Row = []
    begin = 0
    for i in range(1, len(text) + 1):
        if i == len(text) or marked[i] != marked[begin]:
            row.append((text[begin:i], f"{style} log--match" if marked[begin] else style))
            begin = i
    return row
