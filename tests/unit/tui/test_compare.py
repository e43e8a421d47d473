"""The compare screen and command, on real run directories."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
from textual.pilot import Pilot

from engine.events.log import LogWriter
from engine.events.run_dir import RunDir
from engine.events.types import Start, Step, Val
from engine.host.files import read_json, write_json
from engine.host.struct_json import to_dict
from engine.runs.store import RunStore
from profiles.errors import UserError
from tests.unit.tui.conftest import step_record
from tests.unit.tui.helpers import on_screen, toasts, until
from tui.app.app import MlaApp
from tui.app.screens.compare import CompareScreen
from tui.app.screens.home import HomeScreen
from tui.app.screens.monitor import MonitorScreen
from tui.app.state.comparison import LETTERS, ComparedRun, RunReader, difference
from tui.app.state.spec_diff import differences, group_by_value
from tui.app.widgets.overlay_chart import OverlayChart, labelled_lines
from tui.cli.main import main

SIZES = [(80, 24), (60, 20), (160, 48)]


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


async def open_compare(pilot: Pilot[Any], store: RunStore, count: int) -> CompareScreen:
    """Mark the first ``count`` runs and compare them."""
    app = pilot.app
    assert isinstance(app, MlaApp)
    await until(pilot, lambda: len(app.screen.query_one("#runs").runs) >= count)  # type: ignore[attr-defined]
    for _ in range(count):
        await pilot.press("space", "j")
    await pilot.press("c")
    await until(pilot, lambda: isinstance(app.screen, CompareScreen))
    screen = app.screen
    assert isinstance(screen, CompareScreen)
    await until(pilot, lambda: all(run.series for run in screen.runs))
    # What was read together is painted together, a moment later.
    if app.size.width < 60:
        return screen
    await until(pilot, lambda: all(run.summary.phase in on_screen(app, "#legend") for run in screen.runs))
    return screen


def legend(app: MlaApp) -> list[str]:
    return on_screen(app, "#legend").splitlines()[1:]


def chart(app: MlaApp) -> str:
    return on_screen(app, "OverlayChart")


# What is read and computed


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


@pytest.mark.parametrize("size", SIZES)
async def test_marked_runs_are_compared(store: RunStore, make_run: Any, size: Any) -> None:
    for name in ("one", "two", "three"):
        make_run(name, 40)
    app = MlaApp(store)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: "three" in on_screen(app, "#runs"))
        await pilot.press("space", "j", "space", "space")  # a mark goes as it came
        assert [line[1] for line in on_screen(app, "#runs").splitlines()[1:3]] == ["●", " "]
        await until(pilot, lambda: "1 marked" in on_screen(app, "Heading"))
        await pilot.press("u")
        await until(pilot, lambda: "marked" not in on_screen(app, "Heading"))
        await pilot.press("k")
        await open_compare(pilot, store, 2)
        await until(pilot, lambda: "loss by step" in chart(app))
        assert "2 runs" in on_screen(app, "Heading")
        await until(pilot, lambda: "two" in legend(app)[1])
        lines = legend(app)
        assert lines[0].startswith(" A━━ three") and "baseline" in lines[0] and "finished" in lines[0]
        assert lines[1].startswith(" B━━ two") and "+0.000" in lines[1]
        await until(pilot, lambda: "A" in chart(app).splitlines()[-3] or "B" in chart(app))
        assert app.screen.query_one("KeyBar").region.bottom == size[1]
        await pilot.press("q")
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))


async def test_without_marks_the_selected_run_is_shown_with_a_hint(store: RunStore, make_run: Any) -> None:
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "no runs yet" in on_screen(app, "#runs"))
        await pilot.press("c", "space")
        await until(pilot, lambda: bool(toasts(app)))
        make_run("alone", 10)
        await until(pilot, lambda: "alone" in on_screen(app, "#runs"))
        await pilot.press("c")
        await until(pilot, lambda: "Space in the list of runs marks others" in on_screen(app, "Heading"))
        assert legend(app)[0].startswith(" A━━ alone")
        await pilot.press("d")
        await until(pilot, lambda: "mark more runs" in on_screen(app, "#specs"))


async def test_metrics_axes_smoothing_and_log_scale(store: RunStore, make_run: Any) -> None:
    make_run("one", 40)
    make_run("two", 40)
    app = MlaApp(store)
    async with app.run_test(size=(120, 30)) as pilot:
        screen = await open_compare(pilot, store, 2)
        await pilot.press("n", "n")
        await until(pilot, lambda: "tok/s by step" in chart(app) and "Δ tok/s" in on_screen(app, "#legend"))
        await pilot.press("n")
        await until(pilot, lambda: "lr by step" in chart(app) and all("lr" in run.series for run in screen.runs))
        await pilot.press("b", "b", "b", "x")
        await until(pilot, lambda: "loss by tokens" in chart(app) and "100k" in chart(app).splitlines()[-1])
        await pilot.press("s", "y")
        await until(pilot, lambda: "smooth · log" in chart(app))
        await pilot.press("x")
        await until(pilot, lambda: "time since the first step" in on_screen(app, "OverlayChart"))
        await pilot.press("x", "0")
        await until(pilot, lambda: "loss by step" in chart(app))


async def test_zoom_pan_and_cursor_are_those_of_the_monitor(store: RunStore, make_run: Any) -> None:
    make_run("one", 40)
    make_run("two", 80)
    app = MlaApp(store)
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await open_compare(pilot, store, 2)
        await until(pilot, lambda: all(run.series for run in screen.runs))
        overlay = screen.query_one(OverlayChart)
        await pilot.press("i", "i")
        await until(pilot, lambda: overlay.visible_range == (60.25, 80))
        await pilot.press("h", "h", "h", "h")
        await until(pilot, lambda: overlay.visible_range[1] < 61)
        await pilot.press("C", "v")
        assert app.clipboard == ""
        await until(pilot, lambda: "loss at step 5" in chart(app) and "· A " in chart(app))
        cursor = screen._cursor
        await pilot.press("l", "C")
        names, values = (line.split("\t") for line in app.clipboard.splitlines())
        assert names[0] == "step" and set(names[1:]) == {"one", "two"} and cursor == float(values[0]) - 1
        await pilot.press("escape", "0")
        await until(pilot, lambda: overlay.visible_range[0] == 0 and "at step" not in chart(app))
        await pilot.click(OverlayChart, offset=(50, 5))
        await until(pilot, lambda: "loss at step" in chart(app))


async def test_hide_baseline_and_open(store: RunStore, make_run: Any) -> None:
    make_run("one", 40)
    make_run("two", 80)
    app = MlaApp(store)
    async with app.run_test(size=(100, 30)) as pilot:
        screen = await open_compare(pilot, store, 2)
        await until(pilot, lambda: "B" in chart(app).partition("\n")[2])
        await pilot.press("j", "space")
        await until(pilot, lambda: "B" not in chart(app).partition("\n")[2])
        assert legend(app)[1].startswith(" B┄┄")
        await pilot.press("space", "f")
        await until(pilot, lambda: "baseline" in legend(app)[1] and "baseline" not in legend(app)[0])
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, MonitorScreen))
        assert "one" in on_screen(app, "Heading")
        await pilot.press("q")
        await until(pilot, lambda: app.screen is screen)


async def test_an_active_run_grows_on_screen(store: RunStore, make_run: Any) -> None:
    _, writer = make_run("one", 20, phase="running")
    make_run("two", 20)
    app = MlaApp(store)
    async with app.run_test(size=(120, 30)) as pilot:
        screen = await open_compare(pilot, store, 2)
        write_steps(writer, 21, 30, 1.25)
        await until(pilot, lambda: "1.250" in on_screen(app, "#legend"))
        assert screen.runs[1].series["loss"].newest == 1.25


async def test_the_differences_of_the_specs_are_shown_and_scroll(store: RunStore, make_run: Any) -> None:
    for name, rate in (("one", 1e-3), ("two", 2e-3), ("three", 1e-3)):
        run_dir, _ = make_run(name, 5)
        spec = read_json(run_dir.path / "spec.json")
        spec["optim"] |= {"lr": rate, **{f"key{i}": rate for i in range(30)}}
        write_json(run_dir.path / "spec.json", spec)
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_compare(pilot, store, 3)
        await pilot.press("d")
        await until(pilot, lambda: "optim.lr" in on_screen(app, "#specs"))
        assert "AC 0.001  B 0.002" in on_screen(app, "#specs")
        assert "batch.micro" not in on_screen(app, "#specs")
        await pilot.press(*"jjjj")
        await until(pilot, lambda: "optim.key3 " in on_screen(app, "#specs").splitlines()[1])
        await pilot.press("q")
        await until(pilot, lambda: not app.screen.query_one("#specs").display)
        assert isinstance(app.screen, CompareScreen)


async def test_a_damaged_spec_and_a_removed_run_are_reported(store: RunStore, make_run: Any) -> None:
    gone, _ = make_run("one", 5, phase="running")
    run_dir, _ = make_run("two", 5)
    (run_dir.path / "spec.json").write_text("{")
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_compare(pilot, store, 2)
        await pilot.press("d")
        await until(pilot, lambda: "A: its spec.json is missing or damaged" in on_screen(app, "#specs"))
        shutil.rmtree(gone.path)
        await until(pilot, lambda: ": was removed" in on_screen(app, "Heading"))
        assert "one" in legend(app)[1]


async def test_too_many_runs_are_refused(store: RunStore, make_run: Any) -> None:
    run_dir, _ = make_run("one", 1)
    with pytest.raises(UserError, match="27 runs; at most 26"):
        MlaApp(store).open_compare([run_dir] * (len(LETTERS) + 1))


@pytest.mark.parametrize("size", [(80, 24), (20, 6)])
async def test_without_colour_letters_tell_the_runs_apart(
    store: RunStore, make_run: Any, monkeypatch: pytest.MonkeyPatch, size: Any
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    make_run("one", 40)
    make_run("two", 80)
    app = MlaApp(store)
    async with app.run_test(size=size) as pilot:
        await open_compare(pilot, store, 2)
        if size[0] == 80:
            await until(pilot, lambda: {"A", "B"} <= set(chart(app).partition("\n")[2]))
        await pilot.press("n", "x", "s", "y", "d", "d", "space", "question_mark", "q", "q")
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))


# The command


def test_compare_as_text_and_as_json(store: RunStore, make_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    make_run("one", 20)
    run_dir, _ = make_run("two", 40)
    spec = read_json(run_dir.path / "spec.json")
    write_json(run_dir.path / "spec.json", {**spec, "optim": {**spec["optim"], "lr": 0.5}})
    assert main(["compare", "one", "two", "--by", "tokens"]) == 0
    text = capsys.readouterr().out
    assert "A  one" in text and "B  two" in text and "x: 41.0k tokens" in text
    assert "optim.lr  A 0.003  B 0.5" in text and "batch.micro" not in text
    assert main(["compare", "one", "two", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["at"] == 20 and [run["step"] for run in result["runs"]] == [20, 40]
    assert result["runs"][1]["delta"] == pytest.approx(0) and result["differences"] == {"optim.lr": [0.003, 0.5]}


def test_compare_shows_bits_per_byte_where_a_run_has_them(
    store: RunStore, make_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run("one", 20)
    _, writer = make_run("two", 40, phase="running")
    assert main(["compare", "one", "two"]) == 0
    assert "bits/byte" not in capsys.readouterr().out
    writer.write(Val(step=40, loss=2.0, bits_per_byte=0.876))
    assert main(["compare", "one", "two"]) == 0
    text = capsys.readouterr().out
    assert "bits/byte" in text and "0.876" in text


def test_compare_shows_the_edits_of_a_run(store: RunStore, make_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    make_run("one", 20)
    run_dir, _ = make_run("two", 40, phase="running")
    live = {"batch.micro": 4, "batch.context": 256, "optim.lr_scale": 0.5, "train.stop_step": 0}
    write_json(run_dir.state_path, {**to_dict(run_dir.state()), "live": live})
    assert main(["compare", "one", "two"]) == 0
    text = capsys.readouterr().out
    assert "batch.micro     A 8  B 8 → 4" in text and "optim.lr_scale  A 1  B 1 → 0.5" in text
    assert "context" not in text.partition("differences")[2] and "stop_step" not in text
    assert main(["compare", "one", "two", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["differences"]["batch.micro"] == [8, [8, 4]]


def test_compare_refuses_with_a_line(store: RunStore, make_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    make_run("one", 2)
    assert main(["compare", "one", "one"]) == 2
    assert "only one run; name two or more" in capsys.readouterr().err
    assert main(["compare", "one", "none"]) == 1
    assert "no such run" in capsys.readouterr().err
