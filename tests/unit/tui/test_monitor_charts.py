"""Charts of the monitor: zoom, pan, cursor and events, through keys and mouse, on real run directories."""

from __future__ import annotations

from typing import Any

import pytest

from engine.events.log_index import LogIndex
from engine.events.types import Checkpoint, Edit, Oom, State, Step, Telemetry
from engine.runs.store import RunStore
from tests.unit.tui.conftest import step_record
from tests.unit.tui.helpers import monitor, on_screen, opened, until
from tui.app.app import MlaApp
from tui.app.screens.home import HomeScreen
from tui.app.screens.monitor import MonitorScreen
from tui.app.widgets.bars import Notice
from tui.app.widgets.chart import Chart
from tui.app.widgets.log_view import LogView
from tui.app.widgets.run_heading import RunHeading


async def test_zoom_applies_to_all_panes_and_follows_new_steps(store: RunStore, make_run: Any) -> None:
    run, writer = make_run("demo", 100, phase="running")
    app = MlaApp(store, run.id)
    async with app.run_test(size=(120, 30)) as pilot:
        await opened(pilot, app, 100)
        writer.write(Telemetry(rss=[1 << 28, 1 << 29], ram_used=[1 << 30] * 2, ram_total=[2 << 30] * 2))
        await until(pilot, lambda: "of 2.00 GiB" in on_screen(app, "#pane-3"))
        await pilot.press("i", "i")
        assert "newest 25 steps" in on_screen(app, "#pane-1")
        panes = list(app.screen.query(Chart))
        assert len({pane.visible_range for pane in panes}) == 1 and panes[0].visible_range[1] >= 100
        await pilot.press("x", "x")
        assert {pane.visible_range for pane in panes} == {monitor(app).viewport.visible_times()}
        await pilot.press("x")
        for number in range(101, 131):
            writer.write(Step(**step_record(number)))
        await until(pilot, lambda: panes[0].visible_range[1] >= 130)
        await pilot.press("h")
        assert "steps 99–124 of 130" in on_screen(app, "#pane-1")
        await pilot.press("u", "u", "u", "u")
        await until(pilot, lambda: "(130)" in on_screen(app, "#pane-1"))
        await pilot.press("i", "h", "0")
        assert "(130)" in on_screen(app, "#pane-1")


async def test_the_cursor_shows_and_copies_the_values_of_every_pane(store: RunStore, make_run: Any) -> None:
    run, writer = make_run("demo", 100, phase="running")
    writer.write(Step(**step_record(101, loss=7.654)))
    app = MlaApp(store, run.id)
    async with app.run_test(size=(120, 30)) as pilot:
        await opened(pilot, app, 101)
        await pilot.pause()
        laid_out: list[object] = []
        app.screen.screen_layout_refresh_signal.subscribe(app, laid_out.append)
        await pilot.press("v", "v")
        assert laid_out == []  # which would double the time of the key
        app.screen.screen_layout_refresh_signal.unsubscribe(app)
        await pilot.press("C")
        assert app.clipboard == ""
        await pilot.press("v")
        assert "at step 51" in on_screen(app, "#pane-1") and "at step 51" in on_screen(app, "#pane-4")
        assert "step 51 ·" in on_screen(app, RunHeading)
        writer.write(State(phase="running", reason=""))  # drawn at once, while the values are in place of the name
        await until(pilot, lambda: on_screen(app, LogView).count("running") == 2)
        assert not app.screen.query_one(Notice).display
        assert "│" in "".join(line[7:] for line in on_screen(app, "#pane-1").splitlines())
        while monitor(app).viewport.cursor != 101:
            await pilot.press("right")
        assert "loss 7.654 · at step 101" in on_screen(app, "#pane-1")
        await pilot.press("C")
        names, values = (line.split("\t") for line in app.clipboard.splitlines())
        copied = dict(zip(names, values, strict=True))
        assert copied["step"] == "101" and copied["loss"] == "7.654" and copied["tok_s"] == "4000"
        await pilot.press("left", "escape")
        assert "demo" in on_screen(app, RunHeading) and "step" not in on_screen(app, RunHeading)
        assert isinstance(app.screen, MonitorScreen)
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))


async def test_the_mouse_zooms_pans_and_sets_the_cursor(store: RunStore, make_run: Any) -> None:
    run, _ = make_run("demo", 400)
    app = MlaApp(store, run.id)
    async with app.run_test(size=(120, 30)) as pilot:
        await opened(pilot, app, 400)
        pane = app.screen.query_one("#pane-1", Chart)
        viewport = monitor(app).viewport
        middle = pane.size.width // 2
        await pilot._post_mouse_events(  # a Pilot has no public way to turn the wheel
            [_wheel()], pane, offset=(middle, 3)
        )
        await until(pilot, lambda: viewport.step_range is not None)
        begin, end = pane.visible_range
        assert 30 < begin < 100 and 300 < end < 370
        await pilot.mouse_down(pane, offset=(middle, 3))
        await pilot.hover(pane, offset=(middle + 10, 3))
        await pilot.mouse_up(pane, offset=(middle + 10, 3))
        await until(pilot, lambda: pane.visible_range[0] < begin)
        assert viewport.cursor is None
        await pilot.click("#pane-4", offset=(middle, 3))
        await until(pilot, lambda: viewport.cursor is not None)
        assert viewport.cursor is not None and pane.visible_range[0] <= viewport.cursor <= pane.visible_range[1]


def _wheel() -> Any:
    from textual.events import MouseScrollUp

    return MouseScrollUp


async def test_events_are_marked_below_the_loss_and_described_at_the_cursor(store: RunStore, make_run: Any) -> None:
    run, writer = make_run("demo", 40, phase="running")
    writer.write(Edit(id="a", changed={"micro": (12, 6)}, step=20, by="me", ok=True, why=""))
    writer.write(Checkpoint(step=30, ok=True, path="x", bytes=1, seconds=1.0))
    log_index = LogIndex(run)
    log_index.catch_up()
    log_index.save()
    app = MlaApp(store, run.id)
    async with app.run_test(size=(120, 30)) as pilot:
        await opened(pilot, app, 40)
        assert "▲" in on_screen(app, "#pane-1") and "▪" in on_screen(app, "#pane-1")
        writer.write(Oom(where="backward", wanted=None, parts={}, action="micro 6 → 3"))
        await until(pilot, lambda: "×" in on_screen(app, "#pane-1"))
        await pilot.press("m")
        assert "× out of memory (backward)" in on_screen(app, RunHeading)
        await pilot.press("m", "m")
        assert "▲ edit micro 12 → 6" in on_screen(app, RunHeading) and "step 20" in on_screen(app, RunHeading)
        await pilot.press("M")
        assert "▪ checkpoint" in on_screen(app, RunHeading)


async def test_zooming_in_on_a_long_run_reads_its_single_steps(
    store: RunStore, make_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.events import series

    monkeypatch.setattr(series, "CAPACITY", 64)
    run, writer = make_run("demo", 2000, phase="running")
    app = MlaApp(store, run.id)
    async with app.run_test(size=(120, 30)) as pilot:
        await opened(pilot, app, 2000)
        assert len(monitor(app).viewport.points("loss")) <= 64
        await pilot.press(*"iiiiii")
        begin, end = monitor(app).viewport.visible_steps() or (0, 0)
        await until(pilot, lambda: len([p for p in monitor(app).viewport.points("loss") if begin <= p[0] <= end]) >= 30)
        writer.write(Step(**step_record(2001, loss=3.21)))
        await until(pilot, lambda: monitor(app).viewport.points("loss")[-1][0] == 2001)
