"""What stands around a plot: the labels of x."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui.app.widgets import plot
from tui.text import format as fmt


def plain(x: float) -> str:
    return f"{x:.0f}"


@given(st.integers(0, 10**9), st.integers(8, 10**9), st.integers(24, 290))
def test_labels_of_x_are_round_and_stand_below_their_place(begin: int, width: int, across: int) -> None:
    end = begin + width
    row = plot.x_labels(begin, end, across, plot.ROUND, 0.0, plain)
    assert len(row) == across
    found = [(match.start(), match.end(), int(match[0])) for match in re.finditer(r"\d+", row)]
    assert found
    for first, last, value in found:
        assert begin <= value <= end
        place = (value - begin) / width * across
        assert first - 1 <= place <= last + 1
    assert any(all(value % step == 0 for *_, value in found) for step in plot.ROUND if step * across / width >= 10)


@pytest.mark.parametrize(
    ("end", "across", "row"),
    [(125, 32, "0           50           100"), (200, 32, "0              100           200")],
)
def test_the_end_of_an_axis_that_is_not_round_has_no_label(end: int, across: int, row: str) -> None:
    assert plot.x_labels(0, end, across, plot.ROUND, 0.0, plain).rstrip() == row


def test_hours_are_round_where_the_day_is() -> None:
    begin = 1_795_600_123.0
    row = plot.x_labels(
        begin, begin + 7200, 66, plot.ROUND_TIMES, fmt.start_of_day(begin), lambda t: fmt.axis_time(t, 7200)
    )
    found = re.findall(r"\d\d:\d\d", row)
    assert len(found) >= 3 and all(label.endswith((":00", ":30", ":15", ":45", ":20", ":40")) for label in found)


def test_no_room_no_labels() -> None:
    assert plot.x_labels(0, 1e30, 5, plot.ROUND, 0.0, plain) == " " * 5
