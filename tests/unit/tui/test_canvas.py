from itertools import pairwise
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.app import App, ComposeResult
from textual.geometry import Region
from textual.strip import Strip

from tui.app.themes import THEMES
from tui.app.widgets.canvas import Canvas, Row, changed_cells, fit_row
from tui.app.widgets.chart import CHART_STYLES, Chart, Line
from tui.text.ellipsis import clip
from tui.text.narrow import is_narrow

# An accent, and what makes a flag of the white one: they take no cell, or one more.
text = st.text(alphabet="ab ⣿日\t\x1b\u0301🏳\ufe0f", max_size=12)
rows = st.lists(st.tuples(text, st.sampled_from(["", "x", "y"])), max_size=5)


@given(rows, st.integers(0, 30))
def test_a_row_fits_its_width_and_has_no_control_characters(row: list[tuple[str, str]], width: int) -> None:
    fitted = fit_row(row, width)
    assert sum(cell_len(part) for part, _ in fitted) == width
    assert all(part.isprintable() for part, _ in fitted)


@given(rows, rows)
def test_changed_cells_cover_every_difference_and_are_empty_when_equal(
    a: list[tuple[str, str]], b: list[tuple[str, str]]
) -> None:
    old, new = fit_row(a, 40), fit_row(b, 40)
    assert changed_cells(new, new) == []
    stretches = changed_cells(old, new)
    covered = {x for start, length in stretches for x in range(start, start + length)}
    before, after = ([(c, s) for part, s in row for c in _cells_of(part)] for row in (old, new))
    assert {x for x in range(40) if before[x] != after[x]} <= covered <= set(range(40))


def _cells_of(part: str) -> list[str]:
    starts = [i for i, char in enumerate(part) if cell_len(char)]
    drawn = [part[start:end] for start, end in pairwise([*starts, len(part)])]
    return [cell for one in drawn for cell in (one, "")[: cell_len(one)]]


def test_what_is_taken_for_narrow_has_a_cell_a_character() -> None:
    printable = [char for char in map(chr, range(0x110000)) if char.isprintable()]
    assert [char for char in printable if is_narrow(char) and cell_len(char) != 1] == []
    assert is_narrow("loss 5.1┤⣿⡇─╌▁█…·×→")


def test_clip_ends_in_an_ellipsis() -> None:
    assert clip("abcdef", 4) == "abc…"
    assert clip("abc", 4) == "abc"


class _Chart(Chart):
    COMPONENT_CLASSES: ClassVar[set[str]] = CHART_STYLES


class _ChartApp(App[None]):
    def get_theme_variable_defaults(self) -> dict[str, str]:
        return dict(THEMES[0].variables)

    def compose(self) -> ComposeResult:
        yield _Chart("loss", id="pane-1")


async def test_a_new_point_or_a_cursor_refreshes_a_few_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    app = _ChartApp(css_path=["../../../tui/app/styles/app.tcss", "../../../tui/app/styles/monitor.tcss"])
    async with app.run_test(size=(80, 24)) as pilot:
        chart = app.query_one(Chart)
        points = [(float(x), 5.0, 5.0, 5.0) for x in range(1, 52)]
        chart.show(["loss 5.000 · 51"], [Line(points, "chart--line")])
        await pilot.pause()
        refreshed: list[Region] = []
        whole = chart.refresh

        def refresh(*regions: Region, **how: bool) -> Chart:
            refreshed.extend(regions or [chart.size.region])
            return whole(*regions, **how)

        chart.refresh = refresh  # type: ignore[method-assign]
        chart.show(["loss 5.000 · 52"], [Line([*points, (52.0, 5.0, 5.0, 5.0)], "chart--line")])
        assert 1 <= sum(region.area for region in refreshed) <= 6
        refreshed.clear()
        chart.show(["loss 5.000 · 52"], [Line([*points, (52.0, 5.0, 5.0, 5.0)], "chart--line")])
        assert refreshed == []
        with monkeypatch.context() as drawn_before:
            drawn_before.setattr("tui.app.state.raster.to_columns", None)  # no plot is drawn again for a cursor
            for chart.cursor in (20.0, 40.0, None):
                chart.redraw()
        assert {region.width for region in refreshed} == {1} and len(refreshed) == 4 * 22
        refreshed.clear()
        points.append((52.0, 9.0, 9.0, 9.0))  # a series grows in place
        chart.show(["loss 9.000 · 52"], [Line(points, "chart--line")])
        before = len(refreshed)
        points.append((53.0, 1.0, 1.0, 1.0))
        chart.show(["loss 9.000 · 52"], [Line(points, "chart--line")])
        assert len(refreshed) > before


class _Ruler(Canvas):
    """Keeps of every line that was rendered how wide it says it is, and how wide it is."""

    def __init__(self) -> None:
        super().__init__()
        self.widths: list[tuple[int, int]] = []

    def draw(self, width: int, height: int) -> list[Row]:
        return [[("x" * width, "")]] * height

    def render_lines(self, crop: Region) -> list[Strip]:
        strips = super().render_lines(crop)
        self.widths += [(strip.cell_length, cell_len(strip.text)) for strip in strips]
        return strips


class _RulerApp(App[None]):
    def compose(self) -> ComposeResult:
        yield _Ruler()


async def test_what_is_rendered_before_a_resize_is_handled_has_the_new_width() -> None:
    """A wider line would be written over what is beside it, which no later update of the canvas repairs."""
    app = _RulerApp()
    async with app.run_test(size=(80, 24)) as pilot:
        ruler = app.query_one(_Ruler)
        for width in (40, 79, 40):
            ruler.styles.width = width
            await pilot.pause()
            ruler.render_lines(Region(0, 0, width, 24))
    assert {said for said, _ in ruler.widths} >= {40, 79}
    assert [pair for pair in ruler.widths if pair[0] != pair[1]] == []
