"""The compare screen and command, on real run directories."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from data.fingerprint import Fingerprint, ShardPrint
from engine.events.labels import change_note, change_tags
from engine.events.log import LogWriter
from engine.events.run_dir import RunDir
from engine.events.types import Step, Val
from engine.host.files import read_json, write_json
from engine.host.struct_json import to_dict
from engine.runs.store import RunStore
from profiles.errors import UserError
from tests.unit.tui.conftest import step_record
from tests.unit.tui.helpers import on_screen, selected_row, toasts, until
from tui.app.app import MlaApp
from tui.app.screens.compare import CompareScreen
from tui.app.screens.home import HomeScreen
from tui.app.screens.monitor import MonitorScreen
from tui.app.state.comparison import LETTERS
from tui.app.widgets.bars import Heading
from tui.app.widgets.legend import Legend
from tui.app.widgets.overlay_chart import OverlayChart
from tui.cli.main import main

SIZES = [(80, 24), (60, 20), (160, 48)]


def write_steps(writer: LogWriter, first: int, last: int, level: float, **fields: Any) -> None:
    """Steps of a constant loss, two seconds and ``tokens`` each."""
    each = fields.pop("tokens", 1000)
    for step in range(first, last + 1):
        writer.write(Step(**step_record(step, level, tokens=step * each, **fields)))


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
        assert names == ["step", "two"] and cursor == float(values[0]) - 1  # the other has ended before
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
    run_dir, _ = make_run("two", 40, phase="running")
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
    elsewhere = {**read_json(run_dir.state_path), "host": "elsewhere", "boot": "another"}
    write_json(run_dir.state_path, elsewhere)
    assert main(["compare", "one", "two"]) == 0
    assert " seen " in (text := capsys.readouterr().out) and "running" not in text  # as in ls


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


def record_data(run_dir: RunDir, tokenizer: str = "one" * 9, **tokens: int) -> Path:
    """Write what a trainer records of the shards that it reads, one of each split."""
    splits: dict[str, tuple[ShardPrint, ...]] = {
        split: (ShardPrint(f"{split}.bin", 9, n, "uint16", 0, 64, f"{n}", ""),) for split, n in tokens.items()
    }
    data = Fingerprint(splits, tokenizer)
    write_json(run_dir.data_path(data.digest), data.to_dict())
    write_json(run_dir.state_path, {**to_dict(run_dir.state()), "data": data.digest})
    return run_dir.data_path(data.digest)


def test_runs_that_read_different_data_are_compared_with_a_note(
    store: RunStore, make_run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def compared() -> str:
        assert main(["compare", "one", "two"]) == 0
        return capsys.readouterr().out

    first, second = make_run("one", 20)[0], make_run("two", 40)[0]
    record_data(first, train=5000, val=300)
    assert "different" not in (text := compared()) and "train data  A 5,000 tokens, " in text and "B –" in text
    record_data(second, train=5000, val=300)
    assert "different" not in (text := compared()) and "the specs are equal" in text
    record_data(second, train=5001)
    assert "\ntrained on different data\n" in (text := compared()) and "  B 5,001 tokens, " in text
    record_data(second, train=5000, val=301)
    assert "\nvalidated on different data\n" in (text := compared()) and "train data" not in text
    record = record_data(second, "two" * 9, train=5001, val=301)
    assert "\ndifferent tokenizers: compare bits per byte, not losses\n" in (text := compared())
    assert "tokenizer   A oneoneon  B twotwotw" in text
    record.write_text("{")
    assert "different" not in compared()


async def test_the_heading_says_that_the_data_differs(store: RunStore, make_run: Any) -> None:
    record_data(make_run("one", 20)[0], train=5000, val=300)
    record_data(make_run("two", 40)[0], train=5000, val=301)
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await open_compare(pilot, store, 2)
        await until(pilot, lambda: "validated on different data" in on_screen(app, "Heading"))
        await pilot.press("d")
        await until(pilot, lambda: "val data  A 301 tokens" in on_screen(app, "#specs"))


def test_compare_refuses_with_a_line(store: RunStore, make_run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    make_run("one", 2)
    assert main(["compare", "one", "one"]) == 2
    assert "only one run; name two or more" in capsys.readouterr().err
    assert main(["compare", "one", "none"]) == 1
    assert "no such run" in capsys.readouterr().err


async def test_tags_and_notes_are_beside_the_runs_or_in_the_heading(store: RunStore, make_run: Any) -> None:
    first, _ = make_run("one", 5)
    make_run("two", 5)
    change_tags(first.path, ["moe", "lr"], [])
    change_note(first.path, "a higher rate")
    app = MlaApp(store)
    async with app.run_test(size=(160, 48)) as pilot:
        await open_compare(pilot, store, 2)
        await until(pilot, lambda: "labels" in on_screen(app, Legend))
        line = next(line for line in on_screen(app, Legend).splitlines() if "one" in line)
        assert line.rstrip().endswith("#moe #lr · a higher rate")
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: "labels" not in on_screen(app, Legend))
        await pilot.press("g")
        if "one" not in selected_row(app.screen.query_one(Legend)):
            await pilot.press("j")
        letter = selected_row(app.screen.query_one(Legend)).strip()[0]
        await until(pilot, lambda: f"{letter}: #moe #lr · a higher rate" in on_screen(app, Heading))
