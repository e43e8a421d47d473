"""The x labels of a plot."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tui.app.widgets import plot
from tui.text import format as fmt


def plain(x: float) -> str:
    return f"{x:.0f}"


@given(st.integers(0, 10**9), st.integers(8, 10**9), st.integers(24, 290))
@example(1, 4801, 24)  # 2000 is a little too near, and there is no 5000
def test_x_labels_are_round_and_below_their_value(begin: int, length: int, width: int) -> None:
    end = begin + length
    row = plot.x_labels(begin, end, width, plot.ROUND_NUMBERS, 0.0, plain)
    assert len(row) == width
    found = [(match.start(), match.end(), int(match[0])) for match in re.finditer(r"\d+", row)]
    assert found
    for first, last, value in found:
        assert begin <= value <= end
        place = (value - begin) / length * width
        assert first - 1 <= place <= last + 1
    assert any(
        all(value % step == 0 for *_, value in found) for step in plot.ROUND_NUMBERS if step * width / length >= 3
    )


@pytest.mark.parametrize(
    ("end", "width", "row"),
    [(125, 32, "0           50           100"), (200, 32, "0              100           200")],
)
def test_the_end_of_an_axis_has_a_label_only_if_it_is_round(end: int, width: int, row: str) -> None:
    assert plot.x_labels(0, end, width, plot.ROUND_NUMBERS, 0.0, plain).rstrip() == row


def test_clock_labels_are_round_in_local_time() -> None:
    begin = 1_795_600_123.0
    row = plot.x_labels(
        begin, begin + 7200, 66, plot.ROUND_TIMES, fmt.start_of_day(begin), lambda t: fmt.axis_time(t, 7200)
    )
    found = re.findall(r"\d\d:\d\d", row)
    assert len(found) >= 3 and all(label.endswith((":00", ":30", ":15", ":45", ":20", ":40")) for label in found)


def test_labels_that_do_not_fit_are_left_out() -> None:
    assert plot.x_labels(0, 1e30, 5, plot.ROUND_NUMBERS, 0.0, plain) == " " * 5
