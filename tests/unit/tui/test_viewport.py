import math
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.events.series import Bucket
from engine.events.status import Summary
from engine.events.types import Start, Step, Telemetry, Val
from engine.events.wire import HistoryAnswer
from tui.app.state.run_view import RunView
from tui.app.state.viewport import Viewport
from tui.app.state.x_axis import STEP, TIME, TOKENS, Converted, interpolate

SUMMARY = Summary(id="20260101-000000-cpu_demo", name="demo", phase="running", steps=5000)


def record(step: int, loss: float | None = None, **fields: Any) -> Step:
    loss = float(step) if loss is None else loss
    return Step(t=1e9 + 2.0 * step, step=step, loss=loss, tok_s=1.0, step_s=2.0, **fields)


def viewport_of(steps: int) -> Viewport:
    view = RunView(SUMMARY)
    for step in range(1, steps + 1):
        view.apply(None, record(step))
    return Viewport(view)


def coarse_viewport(steps: int, width: int) -> Viewport:
    """A viewport of a run whose history has buckets of ``width`` steps."""
    view = RunView(SUMMARY)
    ends = range(width, steps + 1, width)
    series = {
        "loss": [Bucket(x, x - width + 1, x - (width - 1) / 2, x, width) for x in ends],
        "t": [Bucket(x, 1e9 + 2 * (x - width + 1), 1e9 + 2 * x - width, 1e9 + 2 * x, width) for x in ends],
    }
    view.load_history(HistoryAnswer(0, series, (0, None)))
    return Viewport(view)


@settings(deadline=None, max_examples=30)
@example(4097, 0.0)  # buckets of two steps, and the cursor within the first of them
@given(st.integers(10, 5000), st.floats(-0.1, 1.1))
def test_the_cursor_reads_the_bucket_that_contains_its_step(steps: int, at: float) -> None:
    viewport = viewport_of(steps)
    viewport.set_cursor(round(at * steps))
    assert viewport.cursor is not None and 1 <= viewport.cursor <= steps
    point = viewport.bucket_at_cursor("loss")
    assert point is not None
    x, low, _, high = point
    assert low is not None and high is not None and low <= viewport.cursor <= high == x
    assert viewport.time_of(viewport.cursor) == pytest.approx(1e9 + 2 * viewport.cursor)
    viewport.chosen_axis = TIME
    first = viewport.points("t")[0][0]  # the end of the first bucket; no earlier time is known
    assert viewport.step_at(1e9 + 2 * viewport.cursor) == pytest.approx(max(viewport.cursor, first))


def test_a_value_that_was_measured_after_the_cursors_step_keeps_its_own() -> None:
    viewport = viewport_of(100)
    for step in (50, 100):
        viewport.view.apply(None, Val(step=step, loss=2.0 + step))
    for cursor, measured in ((50, 50), (51, 100)):
        viewport.set_cursor(cursor)
        validation, loss = viewport.bucket_at_cursor("val_loss"), viewport.bucket_at_cursor("loss")
        assert validation is not None and loss is not None
        assert viewport.step_of("val_loss", validation) == measured and viewport.step_of("loss", loss) == cursor


def test_telemetry_is_read_at_the_time_of_the_cursors_step() -> None:
    viewport = viewport_of(100)
    for t in range(0, 201, 10):
        viewport.view.apply(None, Telemetry(t=1e9 + t, rss=float(t)))
    viewport.set_cursor(50)  # done at 100 s
    point = viewport.bucket_at_cursor("rss")
    assert point is not None and point[2] == 100.0
    viewport.zoom(0.5, 50.0)
    assert viewport.visible_times() == pytest.approx(tuple(1e9 + 2 * step for step in viewport.visible_steps() or ()))


def test_zooming_into_a_long_run_requests_its_steps_once_and_then_shows_them() -> None:
    viewport = coarse_viewport(100_000, 100)
    assert viewport.detail_request() is None
    for _ in range(8):
        viewport.zoom(0.5, 50_000.0)
    request = viewport.detail_request()
    assert request is not None and request.until is not None and viewport.detail_request() is None
    steps = range(math.ceil(request.since), int(request.until) + 1)
    assert len(viewport.points("loss")) == 1000
    viewport.load_detail(request, {"loss": [Bucket(x, x, x, x, 1) for x in steps]})
    assert len(viewport.points("loss")) == len(steps)
    viewport.set_cursor(50_001)
    assert viewport.bucket_at_cursor("loss") == (50_001.0, 50_001, 50_001, 50_001)
    viewport.step_range = None
    assert len(viewport.points("loss")) == 1000 and viewport.detail_request() is None


def test_an_outdated_answer_is_dropped() -> None:
    viewport = coarse_viewport(100_000, 100)
    viewport.zoom(0.01, 50_000.0)
    first = viewport.detail_request()
    viewport.pan(-3)
    second = viewport.detail_request()
    assert first is not None and second is not None and first != second
    viewport.load_detail(first, {"loss": [Bucket(x, 0, 0, 0, 1) for x in range(1, 99_000)]})
    assert len(viewport.points("loss")) == 1000


def test_new_steps_are_added_to_the_detail() -> None:
    viewport = coarse_viewport(100_000, 100)
    viewport.zoom(0.005)
    request = viewport.detail_request()
    assert request is not None and request.until is None
    viewport.view.apply(None, record(100_001))  # came while the log was read
    viewport.load_detail(request, {"loss": [Bucket(x, x, x, x, 1) for x in range(math.ceil(request.since), 100_001)]})
    for step in (100_002, 100_003):
        viewport.view.apply(None, record(step))
        viewport.apply(record(step))
    assert [p[0] for p in viewport.points("loss")[-4:]] == [100_000, 100_001, 100_002, 100_003]
    assert viewport.detail_request() is None and viewport.follows_newest()
    viewport.apply(Start(resumed_from=99_990))
    assert len(viewport.points("loss")) < 2000


def test_a_run_without_steps_has_nothing_to_show() -> None:
    viewport = Viewport(RunView(SUMMARY))
    viewport.zoom(0.5)
    viewport.pan(1)
    viewport.set_cursor(5)
    viewport.move_cursor(1, 10)
    assert viewport.cursor is None and viewport.detail_request() is None
    assert viewport.visible_steps() is None and viewport.visible_times() is None
    assert viewport.bucket_at_cursor("loss") is None and viewport.marks_at_cursor(10) == []


def test_all_series_are_drawn_on_the_same_axis() -> None:
    viewport = Viewport(RunView(SUMMARY))
    viewport.view.apply(None, Telemetry(t=1e9, rss=1.0))
    assert viewport.axis == TIME and viewport.extent() == (1e9, 1e9)  # no step is known yet
    for step in range(1, 101):
        viewport.view.apply(None, record(step, tokens=step * 512))
        viewport.view.apply(None, Telemetry(t=1e9 + 2 * step, rss=float(step)))
    viewport.view.apply(None, Telemetry(t=1e9 + 10_000, rss=100.0))  # a step that takes long
    for axis, scale in ((STEP, 1), (TOKENS, 512)):
        viewport.chosen_axis = axis
        assert viewport.axis == axis
        assert [p[0] for p in viewport.drawn("loss")] == [step * scale for step in range(1, 101)]
        assert [p[0] for p in viewport.drawn("rss")] == pytest.approx([step * scale for step in range(102)])
        assert viewport.extent() == (scale, 100 * scale)
    viewport.chosen_axis = TIME
    assert [p[0] for p in viewport.drawn("loss")] == [1e9 + 2 * step for step in range(1, 101)]
    assert viewport.extent() == (1e9, 1e9 + 10_000)
    viewport.zoom(0.5)
    assert viewport.visible_x() == viewport.visible_times()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 50), min_size=2, max_size=60).map(sorted), st.data())
def test_a_series_converted_as_it_grows_is_that_converted_at_once(ts: list[float], data: st.DataObject) -> None:
    """Samples come between steps; what was converted before the next step is corrected after it."""
    growing = Converted()
    points = [(t, t, t, t) for t in ts]
    ends = [0.0, *sorted(data.draw(st.lists(st.floats(0, 50), min_size=1, max_size=20)))]
    for known in range(2, len(ends) + 1):
        xs = [*ends[:known], ends[known - 1] + 1]
        ys = [float(step) for step in range(known + 1)]
        seen = [point for point in points if point[0] <= xs[-2]]
        got = growing.update(seen, xs, ys, "step")
        assert [p[0] for p in got] == [interpolate(xs, ys, p[0]) for p in seen]
