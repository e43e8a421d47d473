from hypothesis import given
from hypothesis import strategies as st

from tui.app.state.step_range import MIN_WIDTH, StepRange, pan, scroll_to, zoom

actions = st.lists(
    st.one_of(
        st.tuples(st.just("zoom"), st.floats(0.05, 20), st.none() | st.floats(0, 1)),
        st.tuples(st.just("pan"), st.floats(-3, 3), st.none()),
        st.tuples(st.just("scroll"), st.floats(0, 1), st.none()),
    ),
    max_size=30,
)


@given(st.integers(0, 1000), st.integers(1, 1_000_000), actions)
def test_no_zoom_or_pan_leaves_the_data(
    start: int, length: int, performed: list[tuple[str, float, float | None]]
) -> None:
    first, last = float(start), float(start + length)
    current: StepRange | None = None
    for action, value, where in performed:
        if action == "zoom":
            current = zoom(current, first, last, value, None if where is None else first + where * length)
        elif action == "pan":
            current = pan(current, first, last, value)
        else:
            step = first + value * length
            current = scroll_to(current, first, last, step)
            if current is not None:
                begin, end = current.bounds(first, last)
                assert begin - 1e-6 <= step <= end + 1e-6
        if current is not None:
            begin, end = current.bounds(first, last)
            assert MIN_WIDTH - 1e-6 <= end - begin <= length + 1e-6
            # A range that follows the newest step has space for the next steps, so that it need not move with each.
            space = max(current.width / 5, 1.0) + 1
            assert first - 1e-6 <= begin + space and end <= last + (1e-6 if current.end is not None else space)
            assert begin < last


@given(st.floats(100, 1e6), st.floats(0, 1), st.floats(0.2, 0.9))
def test_zooming_at_a_step_keeps_it_in_place(last: float, fraction: float, factor: float) -> None:
    at = fraction * last
    closer = zoom(None, 0, last, factor, at)
    assert closer is not None
    begin, end = closer.bounds(0, last)
    assert abs((at - begin) / (end - begin) - fraction) < 1e-6


def test_a_range_at_the_newest_step_follows_until_it_is_moved_and_again_at_the_end() -> None:
    newest = zoom(None, 1, 1000, 0.1)
    assert newest is not None and newest.end is None
    assert [newest.bounds(1, last)[1] >= last for last in (1000, 1005, 2000)] == [True] * 3
    assert newest.bounds(1, 1003) == newest.bounds(1, 1004)  # it shifts in jumps
    away = pan(newest, 1, 1000, -1)
    assert away is not None and away.end is not None
    again = pan(away, 1, 1000, 5)
    assert again is not None and again.end is None
    assert zoom(again, 1, 1000, 100) is None
