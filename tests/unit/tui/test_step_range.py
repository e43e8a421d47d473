from hypothesis import given
from hypothesis import strategies as st

from tui.app.state import step_range as step_ranges
from tui.app.state.step_range import MIN_WIDTH, StepRange

moves = st.lists(
    st.one_of(
        st.tuples(st.just("zoom"), st.floats(0.05, 20), st.none() | st.floats(0, 1)),
        st.tuples(st.just("pan"), st.floats(-3, 3), st.none()),
        st.tuples(st.just("show"), st.floats(0, 1), st.none()),
    ),
    max_size=30,
)


@given(st.integers(0, 1000), st.integers(1, 1_000_000), moves)
def test_no_way_of_looking_leaves_the_data(
    first: int, length: int, asked: list[tuple[str, float, float | None]]
) -> None:
    low, high = float(first), float(first + length)
    window: StepRange | None = None
    for what, value, where in asked:
        if what == "zoom":
            window = step_ranges.zoom(window, low, high, value, None if where is None else low + where * length)
        elif what == "pan":
            window = step_ranges.pan(window, low, high, value)
        else:
            step = low + value * length
            window = step_ranges.scroll_to(window, low, high, step)
            if window is not None:
                begin, end = window.bounds(low, high)
                assert begin - 1e-6 <= step <= end + 1e-6
        if window is not None:
            begin, end = window.bounds(low, high)
            assert MIN_WIDTH - 1e-6 <= end - begin <= length + 1e-6
            # One that follows has room for the next steps, so that it need not move with each of them.
            room = max(window.width / 5, 1.0) + 1
            assert low - 1e-6 <= begin + room and end <= high + (1e-6 if window.end is not None else room)
            assert begin < high


@given(st.floats(100, 1e6), st.floats(0, 1), st.floats(0.2, 0.9))
def test_what_is_pointed_at_stays_where_it_is(high: float, share: float, factor: float) -> None:
    at = share * high
    closer = step_ranges.zoom(None, 0, high, factor, at)
    assert closer is not None
    begin, end = closer.bounds(0, high)
    assert abs((at - begin) / (end - begin) - share) < 1e-6


def test_a_look_at_the_newest_follows_until_it_is_moved_and_again_at_the_end() -> None:
    window = step_ranges.zoom(None, 1, 1000, 0.1)
    assert window is not None and window.end is None
    assert [window.bounds(1, high)[1] >= high for high in (1000, 1005, 2000)] == [True] * 3
    assert window.bounds(1, 1003) == window.bounds(1, 1004)  # it moves in steps
    away = step_ranges.pan(window, 1, 1000, -1)
    assert away is not None and away.end is not None
    again = step_ranges.pan(away, 1, 1000, 5)
    assert again is not None and again.end is None
    assert step_ranges.zoom(again, 1, 1000, 100) is None
