"""Base class of widgets that draw rows of styled text and refresh only the cells that changed.

Over ssh every byte counts: a full repaint of a chart costs kilobytes per tick, a repaint of its changed cells a few
dozen bytes. So a canvas keeps its rows, draws new ones on ``redraw``, and refreshes the difference.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import compress

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.geometry import Region, Size
from textual.strip import Strip
from textual.widget import Widget

from tui.text.narrow import graphemes, is_narrow

Span = tuple[str, str]
"""Text and its style: component classes of the widget, separated by spaces."""
Row = list[Span]

# Moving the cursor within a line costs about as many bytes as writing this many unchanged cells.
_MERGE_DISTANCE = 4


def fit_row(spans: Sequence[Span], width: int, fill: str = "") -> Row:
    """Clip or pad (in style ``fill``) to exactly ``width`` cells; control characters become spaces."""
    whole = "".join([text for text, _ in spans])
    if whole.isprintable() and is_narrow(whole) and (left := width - len(whole)) >= 0:  # as nearly always
        return [*(span for span in spans if span[0]), *([(" " * left, fill)] if left else ())]
    row: Row = []
    left = width
    for text, style in spans:
        if left <= 0:
            break
        if not text:
            continue
        if not text.isprintable():
            text = "".join(c if c.isprintable() else " " for c in text)
        length = cell_len(text)
        if length > left:
            text, length = set_cell_size(text, left), left
        row.append((text, style))
        left -= length
    if left > 0:
        row.append((" " * left, fill))
    return row


def _cells(row: Row) -> tuple[Sequence[str], list[str]]:
    """Return the text and the style of each terminal cell; the second half of a wide character is empty."""
    styles: list[str] = []
    whole = "".join([text for text, _ in row])
    if is_narrow(whole):
        for text, style in row:
            styles += [style] * len(text)
        return whole, styles
    cells: list[str] = []
    for text, style in row:
        for drawn, width in graphemes(text):
            cells += [drawn, *[""] * (width - 1)][:width]
            styles += [style] * width
    return cells, styles


def changed_cells(old: Row, new: Row) -> list[tuple[int, int]]:
    """Return the (start, length) of stretches of cells that differ; stretches close to each other are merged."""
    if old == new:
        return []
    (text, styles), (new_text, new_styles) = _cells(old), _cells(new)
    if len(text) != len(new_text):
        return [(0, len(new_text))]
    differs = map(operator.or_, map(operator.ne, text, new_text), map(operator.ne, styles, new_styles))
    stretches: list[tuple[int, int]] = []
    for x in compress(range(len(new_text)), differs):
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
        width = self._drawn_width()
        return [self._strip(y, width).crop(*crop.column_span) for y in crop.line_range]

    def render_line(self, y: int) -> Strip:
        return self._strip(y, self._drawn_width())

    def _drawn_width(self) -> int:
        """Return the width, for which the rows are drawn then."""
        size = self.content_size
        if size and size != self._drawn:  # Textual may render before it sends the event of a resize
            self._draw(size)
        return size.width

    def _strip(self, y: int, width: int) -> Strip:
        if y >= len(self._rows):
            return Strip.blank(width)
        if (strip := self._strips.get(y)) is None:
            segments = [Segment(text, self._style(names)) for text, names in self._rows[y]]
            strip = self._strips[y] = Strip(segments, width)
        return strip

    def _style(self, names: str) -> Style:
        style = self._styles_of_names.get(names)
        if style is None:
            parts = [self.styled_by.get_component_rich_style(name, partial=True) for name in names.split()]
            style = Style.combine([self.rich_style, *parts])
            for one in self.get_line_filters():  # once a style: a filter of a line makes another strip of each
                ((_, filtered, _),) = one.apply([Segment(" ", style)], self.background_colors[1])
                style = filtered or Style.null()
            self._styles_of_names[names] = style
        return style

    def notify_style_update(self) -> None:
        self._styles_of_names.clear()
        self._strips.clear()
        super().notify_style_update()

    def on_resize(self, event: events.Resize) -> None:
        self.redraw()
