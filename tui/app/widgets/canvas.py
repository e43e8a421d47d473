"""Base class of widgets that draw rows of styled text and refresh only the cells that changed.

Over ssh every byte counts: a full repaint of a chart costs kilobytes per tick, a repaint of its changed cells a few
dozen bytes. So a canvas keeps its rows, draws new ones on ``redraw``, and refreshes the difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region, Size
from textual.strip import Strip
from textual.widget import Widget

Span = tuple[str, str]
"""Text and its style: component classes of the widget, separated by spaces."""
Row = list[Span]

# Moving the cursor within a line costs about as many bytes as writing this many unchanged cells.
_MERGE_DISTANCE = 4


def fit_row(spans: Sequence[Span], width: int, fill: str = "") -> Row:
    """Clip or pad (in style ``fill``) to exactly ``width`` cells; control characters become spaces."""
    row: Row = []
    left = width
    for text, style in spans:
        if left <= 0:
            break
        if not text:
            continue
        if not text.isprintable():
            text = "".join(c if c.isprintable() else " " for c in text)
        length = len(text) if text.isascii() else cell_len(text)
        if length > left:
            text, length = set_cell_size(text, left), left
        row.append((text, style))
        left -= length
    if left > 0:
        row.append((" " * left, fill))
    return row


def _cells(row: Row) -> list[tuple[str, str]]:
    """Return one entry per terminal cell; the second half of a wide character is an empty string."""
    cells: list[tuple[str, str]] = []
    for text, style in row:
        if text.isascii() or cell_len(text) == len(text):
            cells.extend(zip(text, repeat(style)))
            continue
        for char in text:
            cells.append((char, style))
            cells.extend([("", style)] * (cell_len(char) - 1))
    return cells


def changed_cells(old: Row, new: Row) -> list[tuple[int, int]]:
    """Return the (start, length) of stretches of cells that differ; stretches close to each other are merged."""
    if old == new:
        return []
    same = [a == b for a, b in zip(old, new, strict=False)]
    first = same.index(False) if False in same else len(same)
    start = sum(cell_len(text) for text, _ in new[:first])
    before, after = _cells(old[first:]), _cells(new[first:])
    if len(before) != len(after):
        return [(start, len(after))]
    stretches: list[tuple[int, int]] = []
    for x, (a, b) in enumerate(zip(before, after, strict=True), start):
        if a == b:
            continue
        if stretches and x - sum(stretches[-1]) <= _MERGE_DISTANCE:
            stretches[-1] = (stretches[-1][0], x + 1 - stretches[-1][0])
        else:
            stretches.append((x, 1))
    return stretches


class Canvas(Widget):
    """Subclasses implement ``draw``; call ``redraw`` after a change."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._rows: list[Row] = []
        self._drawn = Size()  # of the rows
        self._strips: dict[int, Strip] = {}  # rows that were rendered, and have not changed since
        self._styles_of_names: dict[str, Style] = {}

    @property
    def styled_by(self) -> Widget:
        """The widget of which the styles of the rows are component styles."""
        return self

    def draw(self, width: int, height: int) -> list[Row]:
        """Return up to ``height`` rows; the caller fits each to ``width``."""
        raise NotImplementedError

    def redraw(self) -> None:
        """Draw again and refresh the cells that differ from the screen."""
        size = self.content_size
        if not self.is_attached or not size:
            return
        old, was = self._rows, self._drawn
        self._draw(size)
        if was != size:
            self.refresh()
            return
        regions = [
            Region(x, y, length, 1)
            for y, (before, after) in enumerate(zip(old, self._rows, strict=True))
            for x, length in changed_cells(before, after)
        ]
        if regions:
            self.refresh(*regions)

    def _draw(self, size: Size) -> None:
        width, height = size
        rows = [fit_row(row, width) for row in self.draw(width, height)[:height]]
        rows += [fit_row([], width) for _ in range(height - len(rows))]
        same = {y for y, (old, new) in enumerate(zip(self._rows, rows, strict=False)) if old == new}
        self._strips = {y: strip for y, strip in self._strips.items() if y in same}
        self._rows, self._drawn = rows, size

    def render_lines(self, crop: Region) -> list[Strip]:
        """Render the rows as they are: to draw what CSS has around them, Textual makes three strips of each."""
        if self.gutter:
            return super().render_lines(crop)
        filters, background = self.get_line_filters(), self.background_colors[1]
        lines = []
        for y in crop.line_range:
            line = self.render_line(y)
            for one in filters:
                line = line.apply_filter(one, background)
            lines.append(line.crop(*crop.column_span))
        return lines

    def render_line(self, y: int) -> Strip:
        size = self.content_size
        if size and size != self._drawn:  # Textual may render before it sends the event of a resize
            self._draw(size)
        if y >= len(self._rows):
            return Strip.blank(size.width)
        if (strip := self._strips.get(y)) is None:
            segments = [Segment(text, self._style(names)) for text, names in self._rows[y]]
            strip = self._strips[y] = Strip(segments, size.width)
        return strip

    def _style(self, names: str) -> Style:
        style = self._styles_of_names.get(names)
        if style is None:
            parts = [self.styled_by.get_component_rich_style(name, partial=True) for name in names.split()]
            style = self._styles_of_names[names] = Style.combine([self.rich_style, *parts])
        return style

    def notify_style_update(self) -> None:
        self._styles_of_names.clear()
        self._strips.clear()
        super().notify_style_update()

    def on_resize(self, event: events.Resize) -> None:
        self.redraw()
