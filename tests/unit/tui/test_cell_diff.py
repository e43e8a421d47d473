import re

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.segment import Segment
from textual.strip import Strip

from tui.app.terminal.cell_diff import CellDiff

WIDTH = 20
OLD, NEW = "·" * WIDTH, "abcdefghijklmnopqrst"
MOVE = re.compile(r"\x1b\[(\d+);(\d+)H")


@given(st.lists(st.tuples(st.integers(0, WIDTH), st.integers(0, WIDTH)), min_size=1, max_size=4), st.integers(1, 19))
def test_only_the_cells_of_the_spans_are_written(ends: list[tuple[int, int]], cut: int) -> None:
    spans = [(0, min(pair), max(pair)) for pair in ends]
    chops = [{0: Strip([Segment(NEW[:cut])]), cut: Strip([Segment(NEW[cut:])])}]
    text = CellDiff(chops, spans, [[cut, WIDTH]]).render_segments(Console(color_system=None))
    screen = list(OLD)
    parts = MOVE.split(text)
    assert parts[0] == ""
    for row, column, written in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        assert row == "1"
        start = int(column) - 1
        screen[start : start + len(written)] = written
    wanted = {x for _, a, b in spans for x in range(a, b)}
    assert "".join(screen) == "".join(NEW[x] if x in wanted else "·" for x in range(WIDTH))
