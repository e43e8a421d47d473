"""The screens of the app, through keys, on real run directories."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import pytest
from textual.screen import Screen
from textual.widgets import Button, OptionList

from engine.events.types import Edit, Start, State, Step
from engine.host.files import write_json
from engine.host.process import host_name
from engine.host.struct_json import to_dict
from engine.runs.store import RunStore
from profiles.errors import UserError
from tests.unit.tui.helpers import on_screen, text_of, toasts, until
from tui.app.app import MlaApp
from tui.app.screens.confirm import ConfirmScreen
from tui.app.screens.home import HomeScreen
from tui.app.screens.monitor import MonitorScreen
from tui.app.screens.new_run import NewRunScreen
from tui.app.widgets.bars import KeyBar
from tui.app.widgets.chart import Chart
from tui.app.widgets.forecast_bars import ForecastBars
from tui.app.widgets.log_view import LogView

SIZES = [(80, 24), (60, 20), (160, 48), (20, 6)]


async def test_home_without_runs_names_the_key_to_press(store: RunStore) -> None:
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "press n" in on_screen(app, "#runs"))


@pytest.mark.parametrize("size", SIZES[:3])
async def test_the_key_bar_is_at_the_bottom_of_every_screen(store: RunStore, make_run: Any, size: Any) -> None:
    make_run("one", 5)
    app = MlaApp(store)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: "one" in on_screen(app, "#runs"))

        def is_on(screen: type[Screen[Any]]) -> bool:
            return isinstance(app.screen, screen) and app.screen.is_mounted

        for key, screen in (("", HomeScreen), ("n", NewRunScreen), ("q", HomeScreen), ("enter", MonitorScreen)):
            await pilot.press(*key.split())
            await until(pilot, partial(is_on, screen))
            await until(pilot, lambda: app.screen.query_one("KeyBar").region.bottom == size[1])
            assert "Help" in on_screen(app, "KeyBar")


async def test_home_lists_runs_and_opens_the_selected_one(store: RunStore, make_run: Any) -> None:
    make_run("first", 20)
    make_run("second", 30, phase="running")
    app = MlaApp(store)
    async with app.run_test(size=(120, 30)) as pilot:
        await until(pilot, lambda: "first" in on_screen(app, "#runs"))
        lines = on_screen(app, "#runs").splitlines()
        assert "second" in lines[1] and "running" in lines[1] and "30/300" in lines[1]
        assert "first" in lines[2] and "finished" in lines[2]
        await until(pilot, lambda: "█" in on_screen(app, "#runs"))
        await pilot.press("j", "enter")
        await until(pilot, lambda: isinstance(app.screen, MonitorScreen))
        assert "first" in on_screen(app, "Heading")
        await pilot.press("q")
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))
        await pilot.press("q")
    assert app.return_code == 0


async def test_an_error_stands_alone(store: RunStore, make_run: Any) -> None:
    """Not beside "no runs yet", "loading …" or "detecting hardware …", which are not true then."""
    run, _ = make_run("demo", 5)
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "demo" in on_screen(app, "#runs"))
        (run.path / "spec.json").write_text("{")
        await pilot.press("o")
        await until(pilot, lambda: "spec.json: missing or damaged" in text_of(app, "#message"))
        assert "the checkpoints cannot be listed" in on_screen(app, "#checkpoints")
        await pilot.press("q")
        os.rename(store.runs, store.home / "moved")
        os.symlink(store.home / "moved", store.runs)
        await until(pilot, lambda: "is a symbolic link" in " ".join(on_screen(app, "Notice").split()))
        assert on_screen(app, "#runs").strip() == ""
        await pilot.press("ctrl+c")
        assert toasts(app)[-1] == "Ctrl+Q quits the app; runs continue"
    bars = ForecastBars()
    assert "detecting hardware" in bars.draw(60, 3)[0][0][0]
    bars.mark_stale()
    assert bars.draw(60, 3)[0][0][0] == " no forecast"


@pytest.mark.parametrize("size", SIZES[:3])
async def test_home_offers_to_resume_runs_that_were_cut_off(store: RunStore, make_run: Any, size: Any) -> None:
    make_run("well", 5)
    for name in ("one", "two"):
        run, _ = make_run(name, 5, phase="running")
        write_json(run.state_path, {**to_dict(run.state()), "boot": "another", "host": host_name()})
    app = MlaApp(store)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: "2 runs were cut off: the machine was rebooted" in on_screen(app, "#cut-off"))
        assert "r resumes the selected one, R all" in on_screen(app, "#cut-off")
        app.screen.query_one("#runs").cursor = 2  # type: ignore[attr-defined]
        await pilot.press("r")
        await until(pilot, lambda: bool(toasts(app)))
        assert "only a run that is paused or was cut off" in toasts(app)[0]
        for run in map(store.find, store.ids()):
            if run.name != "well":
                ended = {"phase": "stopped", "at": run.log_path.stat().st_size}
                write_json(run.state_path, {**to_dict(run.state()), **ended})
        await until(pilot, lambda: not app.screen.query_one("#cut-off").display)


async def test_the_filter_shows_only_runs_that_match(store: RunStore, make_run: Any) -> None:
    make_run("apple", 3)
    make_run("pear", 3)
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "apple" in on_screen(app, "#runs"))
        await pilot.press("slash", *"pea", "enter")
        await until(pilot, lambda: "apple" not in on_screen(app, "#runs"))
        assert "pear" in on_screen(app, "#runs")
        await pilot.press("escape")
        await until(pilot, lambda: "apple" in on_screen(app, "#runs"))


async def test_a_run_that_does_not_exist_is_refused_at_once(store: RunStore) -> None:
    with pytest.raises(UserError, match="there are no runs"):
        MlaApp(store, "latest")


async def test_the_monitor_counts_every_step_and_follows(store: RunStore, make_run: Any) -> None:
    run, writer = make_run("demo", 40, phase="running")
    app = MlaApp(store, run.id)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "steps 1–40 (40)" in on_screen(app, "#pane-1"))
        assert "no GPU · process memory" in on_screen(app, "#pane-2")
        for step in range(41, 61):
            writer.write(Step(step=step, loss=4.213, lr=1e-3, grad_norm=1.0, tok_s=4000.0, step_s=0.5, host_states=0))
        await until(pilot, lambda: "loss 4.213 · steps 1–60 (60)" in on_screen(app, "#pane-1"))
        writer.write(Start(plan={}, params=1, device="cpu", versions={}, resumed_from=50))
        await until(pilot, lambda: "steps 1–50 (50)" in on_screen(app, "#pane-1"))
        writer.write(Edit(id="a", changed={"micro": (8, 4)}, step=51, by="me", ok=True, why=""))
        await until(pilot, lambda: "edit at step 51: micro 8 → 4" in on_screen(app, LogView))
        writer.write(State(phase="finished", reason=""))
        await until(pilot, lambda: "finished" in on_screen(app, "StatusLine"))
        await pilot.press("q")
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))


@pytest.mark.parametrize("size", [(80, 24), (160, 48)])
async def test_unified_memory_is_one_pane(size: tuple[int, int], store: RunStore, make_run: Any) -> None:
    run, writer = make_run("mac", 1, phase="running", backend="mlx")
    memory = {"active": 9 << 30, "cache": 1 << 30, "peak": 20 << 30, "limit": 36 << 30}
    unified: dict[str, Any] = {f"unified_{name}": value for name, value in memory.items()}
    writer.write(Step(step=2, loss=2.0, lr=1e-3, grad_norm=1.0, tok_s=1.0, step_s=0.5, **unified))
    app = MlaApp(store, run.id)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: "peak 20G/36G active 9G cache 1G" in on_screen(app, "#pane-2"))
        assert "tokens/s" in on_screen(app, "#pane-3")
        assert not app.screen.query("#pane-4")
        await pilot.press("2", "z")
        await until(pilot, lambda: "memory peak 20.0 of 36.0 GiB · active 9.00 GiB" in on_screen(app, "#pane-2"))


async def test_a_loss_that_is_not_finite_is_a_gap_and_in_the_title(store: RunStore, make_run: Any) -> None:
    run, writer = make_run("demo", 10, phase="running")
    writer.write(Step(step=11, loss=float("nan"), lr=1e-3, grad_norm=None, tok_s=1.0, step_s=0.5, host_states=0))
    app = MlaApp(store, run.id)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "loss not finite · steps 1–11 (11)" in on_screen(app, "#pane-1"))


async def test_maximize_log_scale_and_smoothing(store: RunStore, make_run: Any) -> None:
    run, _ = make_run("demo", 40)
    app = MlaApp(store, run.id)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "(40)" in on_screen(app, "#pane-1"))
        await pilot.press("4", "z")
        pane = app.screen.query_one("#pane-4", Chart)
        await until(pilot, lambda: pane.size.width == 80)
        assert not app.screen.query_one("#pane-1").display
        await pilot.press("z")
        await until(pilot, lambda: pane.size.width < 80)
        await pilot.press("1", "y", "s")
        await until(pilot, lambda: "log" in on_screen(app, "#pane-1") and "smooth" in on_screen(app, "#pane-1"))


async def test_stop_asks_with_cancel_focused(store: RunStore, make_run: Any) -> None:
    run, _ = make_run("demo", 5, phase="running")
    app = MlaApp(store, run.id)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("S")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        assert isinstance(app.focused, Button) and app.focused.id == "cancel"
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, MonitorScreen))
    assert not run.commands_path.exists()


async def test_an_ended_run_refuses_requests_with_a_line(store: RunStore, make_run: Any) -> None:
    run, _ = make_run("demo", 5)
    app = MlaApp(store, run.id)
    async with app.run_test(size=(120, 30)) as pilot:
        await pilot.press("p")
        await until(pilot, lambda: "the run has already ended: finished" in on_screen(app, LogView))
        await pilot.press("S", "e")
        assert isinstance(app.screen, MonitorScreen)


async def test_the_palette_runs_an_action_of_the_screen(store: RunStore) -> None:
    app = MlaApp(store)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("ctrl+p", *"New run")
        await until(pilot, lambda: any(found.option_count for found in app.screen.query(OptionList)))
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, NewRunScreen))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("no_color", [False, True])
async def test_every_screen_draws_at_every_size(
    store: RunStore, make_run: Any, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], no_color: bool
) -> None:
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    make_run("demo", 1, phase="running")
    app = MlaApp(store)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: bool(app.screen.query_one("#runs").runs))  # type: ignore[attr-defined]
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, MonitorScreen))
        await pilot.press("e", "q", "S", "q", "question_mark", "q", "z", "z", "q", "n", "question_mark", "q", "q")
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))
    assert app.return_code in (0, None)


@pytest.mark.parametrize("size", [(60, 20), (120, 36)])
async def test_toasts_cover_no_data(store: RunStore, make_run: Any, size: tuple[int, int]) -> None:
    run, _ = make_run("demo", 5)
    app = MlaApp(store, run.id)
    async with app.run_test(size=size, notifications=True) as pilot:
        await until(pilot, lambda: isinstance(app.screen, MonitorScreen))
        bar = app.screen.query_one(KeyBar)
        await until(pilot, lambda: bar.region.height == 1)
        app.notify("a short one", timeout=2)
        app.notify("many words " * 15, timeout=60)

        def tops() -> list[int]:
            return [toast.region.y for toast in app.screen.query("Toast") if toast.region.height]

        await until(pilot, lambda: len(tops()) == 2 and min(tops()) == bar.region.y < size[1] - 2)
        assert bar.region.bottom == size[1] and app.screen.query_one(LogView).region.bottom == bar.region.y
        before = bar.region.height
        await until(pilot, lambda: bar.region.height == before - 1 and len(tops()) == 1)
        await pilot.press("q")  # the screen below makes room as well
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))
        await until(pilot, lambda: app.screen.query_one(KeyBar).region.height == before - 1)
    app.notify("one that comes, or goes, while the app ends", timeout=1)
