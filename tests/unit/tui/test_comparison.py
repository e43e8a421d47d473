"""Values of compared runs by step, tokens and time, read from real run directories."""

from __future__ import annotations

from typing import Any

import pytest

from engine.events.log import LogWriter
from engine.events.run_dir import RunDir
from engine.events.types import Checkpoint, Start, State, Step, Val
from engine.host.files import write_json
from engine.host.struct_json import to_dict
from tests.unit.tui.conftest import step_record
from tui.app.state.comparison import ComparedRun, RunReader, difference
from tui.app.state.spec_diff import differences, group_by_value
from tui.app.widgets.overlay_chart import labelled_lines
from tui.cli.report.page import page
from tui.cli.report.reported_run import read_run


def write_steps(writer: LogWriter, first: int, last: int, level: float, **fields: Any) -> None:
    """Steps of a constant loss, two seconds and ``tokens`` each."""
    each = fields.pop("tokens", 1000)
    for step in range(first, last + 1):
        writer.write(Step(**step_record(step, level, tokens=step * each, **fields)))


async def read(run_dir: RunDir, *names: str) -> tuple[ComparedRun, RunReader]:
    run, reader = ComparedRun("A", run_dir.id), RunReader(run_dir)
    await poll(run, reader, *names)
    return run, reader


async def poll(run: ComparedRun, reader: RunReader, *names: str) -> None:
    update = await reader.poll(names or ("loss", "val_loss", "tokens", "t"))
    if update is not None:
        run.apply(update)


async def test_values_by_step_tokens_and_time(make_run: Any) -> None:
    run_dir, writer = make_run("a", 0, phase="running")
    write_steps(writer, 1, 10, 3.0)
    run, _ = await read(run_dir)
    assert list(run.x_values("loss", "step")) == list(range(1, 11))
    assert list(run.x_values("loss", "tokens")) == [step * 1000 for step in range(1, 11)]
    hours = list(run.x_values("loss", "time"))
    assert hours[0] == 0 and hours == sorted(hours)
    assert run.last_x("loss", "tokens") == 10_000
    assert run.value_at("loss", "tokens", 4500) == 3.0
    writer.write(Val(step=5, loss=2.5, bucket="val", tokens=1))
    run, _ = await read(run_dir)
    assert list(run.x_values("val_loss", "tokens")) == [5000]


async def test_the_difference_is_taken_at_the_last_common_point(make_run: Any) -> None:
    a, first = make_run("a", 0, phase="running")
    b, second = make_run("b", 0, phase="running")
    write_steps(first, 1, 10, 3.0)
    write_steps(first, 11, 20, 1.0)
    write_steps(second, 1, 10, 4.0, tokens=2000)
    one, other = [(await read(run_dir))[0] for run_dir in (a, b)]
    assert difference(one, other, "loss", "step") == pytest.approx(1.0)
    # 20 000 tokens are step 20 of the one, 10 of the other
    assert difference(one, other, "loss", "tokens") == pytest.approx(3.0)
    assert difference(one, other, "val_loss", "step") is None
    assert [other.value_at("loss", "step", x) for x in (0, 10, 11)] == [None, 4.0, None]  # it has nothing there


async def test_tokens_of_lost_steps_are_not_those_of_a_run(make_run: Any) -> None:
    """Stopped while it waited to be restarted from step 10."""
    run_dir, writer = make_run("a", 0, phase="stopped")
    write_steps(writer, 1, 10, 3.0)
    writer.write(Checkpoint(step=10, ok=True, path="models/a/ckpt_step_10"))
    write_steps(writer, 11, 17, 3.0)
    for phase in ("recovering", "stopped"):
        writer.write(State(phase=phase, reason=""))
    run, _ = await read(run_dir)
    assert (run.summary.step, run.tokens, run.last_x("loss", "tokens")) == (10, 10_000, 17_000)
    assert "<td>10.0k</td>" in page([read_run("A", run_dir)], "0", 0.0)


async def test_a_run_that_begins_where_the_other_ended_has_no_difference(make_run: Any) -> None:
    """Its first step is not taken for that of the checkpoint which it continues; of merged steps the first counts."""
    a, first = make_run("a", 0, phase="stopped")
    b, second = make_run("b", 0, phase="running")
    write_steps(first, 1, 4500, 3.0)
    write_steps(second, 4501, 9000, 4.0)
    one, other = [(await read(run_dir))[0] for run_dir in (a, b)]
    assert len(one.series["loss"]) < 4500
    for axis in ("step", "tokens"):
        assert one.last_x("loss", axis) in (4500, 4_500_000)
        assert difference(one, other, "loss", axis) is None
    assert [one.value_at("loss", "step", x) for x in (0.5, 1, 4500, 4501)] == [None, 3.0, 3.0, None]
    assert [other.value_at("loss", "step", x) for x in (4500, 4501)] == [None, 4.0]


async def test_an_active_run_is_read_incrementally_and_a_restart_removes_steps(make_run: Any) -> None:
    run_dir, writer = make_run("a", 0, phase="running")
    write_steps(writer, 1, 30, 3.0)
    run, reader = await read(run_dir)
    write_steps(writer, 31, 40, 2.0)
    await poll(run, reader)
    assert list(run.series["loss"].x) == list(range(1, 41))
    assert run.lowest("loss") == 2.0
    again = LogWriter(run_dir.log_path, attempt=2)
    again.write(Start(plan={}, params=1, device="cpu", versions={}, resumed_from=20))
    write_steps(again, 21, 22, 5.0)
    again.close()
    write_json(run_dir.state_path, {**to_dict(run_dir.state()), "attempt": 2, "step": 22})
    await poll(run, reader)
    assert list(run.series["loss"].x) == list(range(1, 23))
    assert run.series["loss"].newest == 5.0 and run.lowest("loss") == 3.0


async def test_an_ended_run_is_read_once(make_run: Any) -> None:
    run_dir, _ = make_run("a", 10)
    _, reader = await read(run_dir)
    assert await reader.poll(("loss",)) is None
    found = await reader.poll(("lr",))
    assert found is not None and [set(series) for series, _ in found.parts] == [{"lr"}]


async def test_a_gap_stays_a_gap_and_tokens_may_be_unknown(make_run: Any) -> None:
    run_dir, writer = make_run("a", 0, phase="running")
    write_steps(writer, 1, 4, 3.0, tokens=0)
    writer.write(Step(**step_record(5, float("nan"), tokens=None)))
    run, _ = await read(run_dir)
    assert run.points("loss", "step", 100)[-1] == (5.0, None, None, None)
    other, writer = make_run("b", 0, phase="running")
    for step in range(1, 5):
        writer.write(Step(**step_record(step, 3.0, tokens=None)))
    run, _ = await read(other)
    assert run.points("loss", "tokens", 100) == [] and run.last_x("loss", "tokens") is None


async def test_points_are_thinned_to_what_a_chart_can_show(make_run: Any) -> None:
    run_dir, writer = make_run("a", 0, phase="running")
    write_steps(writer, 1, 100, 2.0)
    run, _ = await read(run_dir)
    points = run.points("loss", "step", 30)
    assert len(points) == 25 and points[-1] == (100.0, 2.0, 2.0, 2.0)


def test_every_line_is_labelled_at_its_end_and_along_it() -> None:
    points = [(float(x), 1.0, 1.0, 1.0) for x in range(100)]
    drawn = labelled_lines(
        [("A", "overlay--run0", points), ("B", "overlay--run1", points[:50]), ("C", "overlay--run2", [])], 80
    )
    marks = {line.mark: [point[0] for point in line.points] for line in drawn if line.mark}
    assert set(marks) == {"A", "B"}
    assert marks["A"][-1] == 99 and marks["B"][-1] == 49
    assert not set(marks["A"][:-1]) & set(marks["B"][:-1])


def test_differences_are_the_keys_whose_values_differ() -> None:
    found = differences([{"a": 1, "b": True, "c": 0.1}, {"a": 2, "b": True, "c": 0.1}, {"a": 1, "b": True}])
    assert found == {"a": [1, 2, 1], "c": [0.1, 0.1, None]}
    assert group_by_value(found["a"], "ABC") == [("AC", "1"), ("B", "2")]
    assert group_by_value(found["c"], "ABC") == [("AB", "0.1"), ("C", "–")]


# The screen
