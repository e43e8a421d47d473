"""What is written to the terminal, read back as a terminal does."""

from __future__ import annotations

import re
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip

from tui.app.terminal.cell_diff import CellDiff, WholeScreen

WIDTH, LINES = 20, 2
Cell = tuple[str, str]
"""A character and its SGR codes in order; of a space only what can be seen of it."""

COLOURS = st.sampled_from([None, "red", "#123456", "#ffffff"])
STYLES = st.builds(
    Style,
    color=COLOURS,
    bgcolor=COLOURS,
    bold=st.booleans(),
    reverse=st.booleans(),
    underline=st.booleans(),
    dim=st.none(),
)
TEXTS = st.text(alphabet="ab ⣿漢", min_size=1, max_size=6)
SEGMENT = st.tuples(TEXTS, st.none() | STYLES).map(lambda pair: Segment(*pair))
SEGMENTS = st.lists(SEGMENT, min_size=WIDTH // 2, max_size=WIDTH)


class Terminal:
    """Cells of a terminal that understands CSI H, C and m, and nothing else."""

    def __init__(self) -> None:
        self.cells: list[list[Cell]] = [[("·", "")] * WIDTH for _ in range(LINES)]

    def feed(self, text: str) -> None:
        x = y = 0
        style: dict[str, str] = {}
        for parameters, kind, written in re.findall(r"\x1b\[([\d;]*)([HCm])|([^\x1b]+)", text):
            if kind == "H":
                y, x = (int(number) - 1 for number in parameters.split(";"))
            elif kind == "C":
                x += int(parameters)
            elif kind == "m":
                _apply(style, parameters.split(";"))
            for char in written:
                shown = {name: code for name, code in style.items() if char != " " or name in ("48", "4", "7")}
                if char == " " and "7" in style:
                    shown = dict(style)
                for cell in (char, "")[: Strip([Segment(char)]).cell_length]:
                    self.cells[y][x] = cell, ";".join(code for _, code in sorted(shown.items()))
                    x += 1


def _apply(style: dict[str, str], codes: list[str]) -> None:
    """Apply the codes of one SGR sequence; a colour is under ``38`` or ``48``."""
    while codes:
        code = codes.pop(0)
        if code in ("38", "48"):
            more = 4 if codes[0] == "2" else 2
            style[code] = ";".join([code, *(codes.pop(0) for _ in range(more))])
        elif code in ("39", "49"):
            style.pop(f"{code[0]}8", None)
        elif code == "0":
            style.clear()
        elif len(code) > 1:
            style["48" if code[:-1] in ("4", "10") else "38"] = code
        else:
            style[code] = code


def _line(segments: list[Segment]) -> Strip:
    return Strip(segments).adjust_cell_length(WIDTH)


def _naive(strip: Strip, console: Console) -> list[Cell]:
    """Return the cells of a line that is written with the whole style of every piece.

    Rich keeps the codes of a style it has rendered, whatever the colours of the console, and hands out a kept style
    where it splits a piece of text again: the styles rendered here are new ones.
    """
    terminal = Terminal()
    fresh = Strip([Segment(text, style and _fresh(style)) for text, style, _ in strip])
    terminal.feed("\x1b[1;1H" + fresh.render(console))
    return terminal.cells[0]


def _fresh(style: Style) -> Style:
    return Style(
        color=style.color,
        bgcolor=style.bgcolor,
        bold=style.bold,
        reverse=style.reverse,
        underline=style.underline,
    )


LINE = SEGMENTS.map(_line)
CONSOLES = st.sampled_from(
    [Console(color_system="standard"), Console(color_system="256"), Console(color_system="truecolor")]
)


@given(st.lists(LINE, min_size=LINES, max_size=LINES), CONSOLES, st.data())
def test_a_partial_update_shows_the_cells_of_its_spans_and_no_others(
    lines: list[Strip], console: Console, data: st.DataObject
) -> None:
    pieces = st.lists(st.integers(1, WIDTH), min_size=1, max_size=WIDTH).map(lambda sizes: [*accumulate(sizes)])
    chops: list[dict[int, Strip | None]] = []
    ends: list[list[int]] = []
    for line in lines:
        stops = [*sorted(stop for stop in data.draw(pieces) if stop < WIDTH), WIDTH]
        starts = [0, *stops[:-1]]
        chops.append({a: line.crop(a, b) for a, b in zip(starts, stops, strict=True)})
        ends.append(stops)
    cut = st.tuples(st.integers(0, LINES - 1), st.integers(0, WIDTH), st.integers(0, WIDTH))
    spans = [(y, min(a, b), max(a, b)) for y, a, b in data.draw(st.lists(cut, min_size=1, max_size=4))]
    written = CellDiff(chops, spans, ends).render_segments(console)
    terminal = Terminal()
    terminal.feed(written)
    whole = [_naive(Strip.join([one for one in line.values() if one is not None]), console) for line in chops]
    for y in range(LINES):
        wanted = {x for line, a, b in spans if line == y for x in range(a, b)}
        for x in range(WIDTH):
            if x not in wanted:
                assert terminal.cells[y][x] == ("·", "")
            elif "" not in (whole[y][x][0], terminal.cells[y][x][0]):  # a wide character may be cut in half
                assert terminal.cells[y][x] in (whole[y][x], (" ", terminal.cells[y][x][1]))


@given(st.lists(LINE, min_size=LINES, max_size=LINES), CONSOLES)
def test_a_whole_screen_shows_every_cell(lines: list[Strip], console: Console) -> None:
    update = WholeScreen([[line] for line in lines], Region(0, 0, WIDTH, LINES))
    terminal = Terminal()
    terminal.feed(update.render_segments(console))
    assert terminal.cells == [_naive(line, console) for line in lines]


def test_what_follows_a_character_of_disputed_width_stands_in_its_place() -> None:
    """Here a flag takes two cells; in this terminal, as in tmux, one, because its variation selector takes none."""
    terminal = Terminal()
    flag = Segment("\U0001f3f3\ufe0f")
    strips = [Strip([flag, Segment("ab")]), Strip([flag]), Strip([Segment("cd")])]
    terminal.feed(WholeScreen([strips], Region(0, 0, 8, 1)).render_segments(Console(color_system="truecolor")))
    texts = [text for text, _ in terminal.cells[0]]
    assert (texts[2:4], texts[6:8]) == (["a", "b"], ["c", "d"])
