"""The log of the monitor: reading, scrolling, searching, on real run directories."""

from __future__ import annotations

from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static

from engine.events import reverse_reader
from engine.events.types import Checkpoint, Log, Memory, Sample, State
from engine.runs.store import RunStore
from tests.unit.tui.helpers import on_screen, opened, until
from tui.app.app import MlaApp
from tui.app.screens.log_line import LogLineScreen
from tui.app.screens.monitor import MonitorScreen
from tui.app.widgets.bars import Notice
from tui.app.widgets.log_view import LogView


@pytest.mark.parametrize("width", [60, 80])
async def test_a_long_reason_is_read_in_full_on_the_monitor(store: RunStore, make_run: Any, width: int) -> None:
    run, writer = make_run("demo", 5, phase="running")
    run.console_path.write_text("Traceback\n")
    reason = "gave up: " + " ".join(f"word{n}" for n in range(60))
    writer.write(Checkpoint(step=3, ok=False, why="no room " * 40 + "at all"))
    writer.write(State(phase="failed", reason=reason))
    app = MlaApp(store, run.id)
    async with app.run_test(size=(width, 20)) as pilot:
        await until(pilot, lambda: "gave up: word0" in on_screen(app, LogView))
        await until(pilot, lambda: "t its output" in on_screen(app, Notice))
        notice = on_screen(app, Notice)
        assert notice.startswith(" failed: gave up: word0") and "…" in notice
        await pilot.press("5", "z")
        await until(pilot, lambda: "no room at all" in " ".join(on_screen(app, LogView).split()))
        assert f"failed: {reason}" in " ".join(on_screen(app, LogView).split())
        log = app.screen.query_one(LogView)
        await pilot.press("k", "k", "k", "k")
        assert "attempt 1 on cpu" in on_screen(app, LogView).splitlines()[0]
        assert log.buffer.lines_below == 1
        await pilot.press("G")
        await until(pilot, lambda: "word59" in on_screen(app, LogView))


@pytest.fixture
def talkative(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """A run whose log is longer than one read."""
    monkeypatch.setattr(reverse_reader, "BLOCK", 1 << 12)
    run, writer = make_run("demo", 3, phase="running")
    for number in range(1, 601):
        writer.write(Log(level="info", text=f"line {number}", rank=None))
    return run, writer


async def test_the_log_scrolls_back_to_its_first_line(store: RunStore, talkative: Any) -> None:
    run, writer = talkative
    app = MlaApp(store, run.id)
    async with app.run_test(size=(80, 60)) as pilot:
        await until(pilot, lambda: "line 600" in on_screen(app, LogView))
        log = app.screen.query_one(LogView)
        assert 200 <= len(log.buffer.lines) < 400
        await pilot.press("k", "5", "z")
        assert "line 600" not in on_screen(app, LogView)
        while "attempt 1 on cpu" not in on_screen(app, LogView):
            await pilot.press("pageup")
        assert len(log.buffer.lines) == 602
        writer.write(Log(level="info", text="the latest", rank=None))
        await pilot.press("G")
        await until(pilot, lambda: "the latest" in on_screen(app, LogView))
        await pilot.press("g")
        await until(pilot, lambda: "attempt 1 on cpu" in on_screen(app, LogView))
        await pilot.press("pagedown", "j")
        assert "attempt 1 on cpu" not in on_screen(app, LogView)


async def test_the_search_covers_lines_that_are_not_loaded(store: RunStore, talkative: Any) -> None:
    run, writer = talkative
    app = MlaApp(store, run.id)

    async def search(pilot: Pilot[Any], text: str) -> None:
        await pilot.press("slash")
        app.screen.query_one("#search", Input).value = text
        await pilot.press("enter")

    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "line 600" in on_screen(app, LogView))
        await pilot.press("slash", *"LINE 77", "enter")
        await until(pilot, lambda: "line 577" in on_screen(app, LogView))
        await pilot.press("n")
        await until(pilot, lambda: "line 477" in on_screen(app, LogView))
        await pilot.press("N")
        await until(pilot, lambda: "line 577" in on_screen(app, LogView))
        await search(pilot, "line 33 attempt")
        await until(pilot, lambda: "no other line matches" in on_screen(app, LogView))
        await search(pilot, "attempt")
        await until(pilot, lambda: "attempt 1 on cpu" in on_screen(app, LogView))
        await search(pilot, "13")
        await pilot.press("w")
        await until(pilot, lambda: "line 413" in on_screen(app, LogView) and "line 513" in on_screen(app, LogView))
        writer.write(Log(level="info", text="another 13", rank=None))
        writer.write(Log(level="info", text="something else", rank=None))
        await until(pilot, lambda: "another 13" in on_screen(app, LogView))
        assert "something else" not in on_screen(app, LogView)
        await pilot.press("escape")
        await until(pilot, lambda: "something else" in on_screen(app, LogView))
        assert isinstance(app.screen, MonitorScreen)


async def test_the_log_can_be_maximized(store: RunStore, make_run: Any) -> None:
    run, _ = make_run("demo", 3)
    app = MlaApp(store, run.id)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot, app, 3)
        log = app.screen.query_one(LogView)
        await pilot.press("5", "z")
        await until(pilot, lambda: log.size.height > 15)
        await pilot.press("escape")
        await until(pilot, lambda: log.size.height < 10)
        assert isinstance(app.screen, MonitorScreen)


async def test_a_sample_and_repeats_take_one_row_and_enter_opens_the_sample(store: RunStore, make_run: Any) -> None:
    run, writer = make_run("demo", 3, phase="running")
    app = MlaApp(store, run.id)
    async with app.run_test(size=(60, 20)) as pilot:
        await opened(pilot, app, 3)
        for size in (1, 2, 3):  # while the run is watched
            writer.write(Memory(parts={"weights": size << 30}, measured=None, micro=8, context=256))
        writer.write(Sample(step=3, prompt="Once", text=" upon a time" * 40 + " the end", tokens=64, seconds=1.0))
        await until(pilot, lambda: "sample at step 3: Once" in on_screen(app, LogView))
        *_, repeats, sample = on_screen(app, LogView).splitlines()
        assert "such lines)" in repeats and sample.rstrip().endswith("… Enter opens it whole")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, LogLineScreen))
        assert "the end" in str(app.screen.query(Static)[1].content)
