import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tui.app.state.run_view import RunView
from tui.app.state.viewport import Viewport

SUMMARY: dict[str, Any] = {"id": "20260101-000000-cpu_demo", "name": "demo", "phase": "running", "steps": 5000}


def record(step: int, loss: float | None = None, **fields: Any) -> dict[str, Any]:
    loss = float(step) if loss is None else loss
    return {"kind": "step", "t": 1e9 + 2.0 * step, "step": step, "loss": loss, "tok_s": 1.0, "step_s": 2.0, **fields}


def looked(steps: int) -> Viewport:
    view = RunView(SUMMARY)
    for step in range(1, steps + 1):
        view.take(record(step))
    return Viewport(view)


def coarse(steps: int, width: int) -> Viewport:
    """A lens on a run that is known by buckets of ``width`` steps."""
    view = RunView(SUMMARY)
    ends = range(width, steps + 1, width)
    series = {
        "loss": [[x, x - width + 1, x - (width - 1) / 2, x] for x in ends],
        "t": [[x, 1e9 + 2 * (x - width + 1), 1e9 + 2 * x - width, 1e9 + 2 * x] for x in ends],
    }
    view.load_history({"series": series})
    return Viewport(view)


@settings(deadline=None, max_examples=30)
@given(st.integers(10, 5000), st.data())
def test_the_cursor_reads_the_bucket_that_holds_its_step(steps: int, data: st.DataObject) -> None:
    lens = looked(steps)
    lens.point_at(data.draw(st.integers(-10, steps + 10)))
    assert lens.cursor is not None and 1 <= lens.cursor <= steps
    point = lens.read("loss")
    assert point is not None
    x, low, _, high = point
    assert low is not None and high is not None and low <= lens.cursor <= high == x
    assert lens.time_of(lens.cursor) == pytest.approx(1e9 + 2 * lens.cursor)
    assert lens.step_of(1e9 + 2 * lens.cursor) == pytest.approx(lens.cursor)


def test_what_was_measured_over_time_is_read_at_the_time_of_the_step() -> None:
    lens = looked(100)
    for t in range(0, 201, 10):
        lens.view.take({"kind": "telemetry", "t": 1e9 + t, "rss": float(t)})
    lens.point_at(50)  # done at 100 s
    point = lens.read("rss")
    assert point is not None and point[2] == 100.0
    lens.zoom(0.5, 50.0)
    assert lens.times() == pytest.approx(tuple(1e9 + 2 * step for step in lens.steps() or ()))


def test_a_closer_look_at_a_long_run_wants_its_steps_once_and_then_has_them() -> None:
    lens = coarse(100_000, 100)
    assert lens.wanted() is None
    for _ in range(8):
        lens.zoom(0.5, 50_000.0)
    wanted = lens.wanted()
    assert wanted is not None and wanted.until is not None and lens.wanted() is None
    steps = range(math.ceil(wanted.since), int(wanted.until) + 1)
    assert len(lens.points("loss")) == 1000
    lens.take_detail(wanted, {"loss": [[x, x, x, x] for x in steps]})
    assert len(lens.points("loss")) == len(steps)
    lens.point_at(50_001)
    assert lens.read("loss") == (50_001.0, 50_001, 50_001, 50_001)
    lens.window = None
    assert len(lens.points("loss")) == 1000 and lens.wanted() is None


def test_what_came_too_late_for_another_look_is_not_taken() -> None:
    lens = coarse(100_000, 100)
    lens.zoom(0.01, 50_000.0)
    first = lens.wanted()
    lens.pan(-3)
    second = lens.wanted()
    assert first is not None and second is not None and first != second
    lens.take_detail(first, {"loss": [[x, 0, 0, 0] for x in range(1, 99_000)]})
    assert len(lens.points("loss")) == 1000


def test_the_newest_steps_stay_fine_as_they_come() -> None:
    lens = coarse(100_000, 100)
    lens.zoom(0.005)
    wanted = lens.wanted()
    assert wanted is not None and wanted.until is None
    lens.view.take(record(100_001))  # came while the log was read
    lens.take_detail(wanted, {"loss": [[x, x, x, x] for x in range(math.ceil(wanted.since), 100_001)]})
    for step in (100_002, 100_003):
        lens.view.take(record(step))
        lens.take(record(step))
    assert [p[0] for p in lens.points("loss")[-4:]] == [100_000, 100_001, 100_002, 100_003]
    assert lens.wanted() is None and lens.follows()
    lens.take({"kind": "start", "resumed_from": 99_990})
    assert len(lens.points("loss")) < 2000


def test_nothing_to_look_at_is_no_mistake() -> None:
    lens = Viewport(RunView(SUMMARY))
    lens.zoom(0.5)
    lens.pan(1)
    lens.point_at(5)
    lens.move(1, 10)
    assert lens.cursor is None and lens.steps() is None and lens.times() is None and lens.wanted() is None
    assert lens.read("loss") is None and lens.marks_here(10) == []
