"""The panes of the monitor: what they show, which of them fit, which were chosen."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from textual._compositor import LayoutUpdate
from textual.strip import Strip

from engine.events.types import Memory, Step, Telemetry, Val
from engine.runs.store import RunStore
from tests.unit.tui.conftest import step_record
from tests.unit.tui.helpers import on_screen, opened, rendered, until
from tui.app.app import MlaApp
from tui.app.screens.help import HelpScreen
from tui.app.screens.pane_picker import PanePicker
from tui.app.settings import load as load_settings
from tui.app.terminal.cell_diff import WholeScreen
from tui.app.widgets.bars import Heading
from tui.app.widgets.canvas import Row
from tui.app.widgets.chart import Chart
from tui.app.widgets.status_line import StatusLine


async def test_gpu_sensors_and_tokens_left_are_shown(store: RunStore, make_run: Any) -> None:
    run, writer = make_run("demo", 3, phase="running")
    writer.write(Memory(parts={"weights": 3 << 30, "activations": 5 << 30}, measured=None, micro=8, context=256))
    writer.write(Val(step=3, loss=2.0, bits_per_byte=0.876))
    writer.write(Step(**step_record(4, mfu=0.43)))
    used: dict[str, Any] = {"device_used": [9 << 30] * 2, "device_total": [16 << 30] * 2}
    writer.write(Telemetry(**used, device_util=[97, 97], power_w=[312, 312], temp_c=[71, 71]))
    app = MlaApp(store, run.id)
    async with app.run_test(size=(160, 48)) as pilot:
        await opened(pilot, app, 4)
        await until(pilot, lambda: "VRAM 9.00 of 16.0 GiB" in on_screen(app, "#pane-2"))
        for pane, title in (("device_util", "GPU 97%"), ("power_w", "power 312 W"), ("temp_c", "temp 71 °C")):
            assert title in on_screen(app, f"#pane-{pane}")
        assert "╌" in on_screen(app, "#pane-2")
        await pilot.press("2", "z")
        await until(pilot, lambda: "activations 5.00 GiB · weights 3.00 GiB" in on_screen(app, "#pane-2"))
        assert "VRAM 9.00 of 16.0 GiB · 97% busy · 312 W · 71 °C" in on_screen(app, "#pane-2")
        await pilot.press("z")
        assert " · val 0.876 bits/byte" in on_screen(app, "#pane-1")
        assert "MFU 43%" in on_screen(app, "#pane-mfu")
        assert "tokens left 606k" in on_screen(app, "StatusLine")  # 296 steps of 8 × 256
        for width in range(40, 160):  # a value without room for its label is left out
            first = "".join(text for text, _ in app.screen.query_one(StatusLine).draw(width, 2)[0])
            assert ("606k" in first) <= ("tokens left 606k" in first), first
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: "loss 7.539 (4) · val 0.876 bits/byte\n" in on_screen(app, "#pane-1"))
        await pilot.resize_terminal(60, 20)  # without room for it nothing of it is left
        await until(pilot, lambda: "loss 7.539 · steps 1–4 (4)\n" in on_screen(app, "#pane-1"))


async def test_more_panes_are_shown_where_they_fit_and_paged_where_not(store: RunStore, make_run: Any) -> None:
    run, writer = make_run("demo", 40, phase="running")
    writer.write(Step(**step_record(41, mfu=0.43, data_share=0.02)))
    app = MlaApp(store, run.id)

    def shown() -> list[str]:
        return [pane.id or "" for pane in app.screen.query(Chart) if pane.display]

    first = [f"pane-{number}" for number in (1, 2, 3, 4)]
    others = ["pane-lr", "pane-grad_norm", "pane-mfu", "pane-data_share"]
    chosen = [*first, "pane-grad_norm", "pane-data_share", "pane-mfu"]  # in the order of the list
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot, app, 41)
        await until(pilot, lambda: shown() == first and "page 1 of 2" in on_screen(app, Heading))
        await pilot.press("a")
        await until(pilot, lambda: shown() == others and "MFU 43%" in on_screen(app, "#pane-mfu"))
        assert "%" in on_screen(app, "#pane-mfu").splitlines()[1] and app.focused is app.screen.query_one("#pane-lr")
        await pilot.press("2")
        assert shown() == first
        await pilot.resize_terminal(160, 48)
        await until(pilot, lambda: shown() == first + others)
        await pilot.press("f")
        await until(pilot, lambda: isinstance(app.screen, PanePicker))
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        await pilot.press("q", "space", "q")  # lr is the first in the list
        await until(pilot, lambda: shown() == chosen)
    again = MlaApp(store, run.id, settings=load_settings()[0])
    async with again.run_test(size=(80, 24)) as pilot:
        await opened(pilot, again, 41)
        await until(pilot, lambda: [pane.id for pane in again.screen.query(Chart)] == chosen)
        below = again.screen
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(again.screen, HelpScreen))
        await pilot.resize_terminal(160, 48)  # below a dialog too, panes that come in have their data
        await until(pilot, lambda: "MFU 43%" in rendered(below.query_one("#pane-mfu")))


async def test_a_move_of_the_focus_draws_two_charts_and_not_the_whole_screen(
    store: RunStore, make_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = make_run("demo", 40, phase="finished")
    app, drawn, whole = MlaApp(store, run.id), list[str | None](), list[object]()
    draw, from_update = Chart.draw, WholeScreen.from_update
    async with app.run_test(size=(160, 48)) as pilot:
        await opened(pilot, app, 40)
        await pilot.pause()

        def drawing(chart: Chart, *size: int) -> list[Row]:
            drawn.append(chart.id)
            return draw(chart, *size)

        def writing(update: LayoutUpdate) -> WholeScreen:
            whole.append(update)
            return from_update(update)

        monkeypatch.setattr(Chart, "draw", drawing)
        monkeypatch.setattr(WholeScreen, "from_update", writing)
        await pilot.press("2")
        await until(pilot, lambda: app.focused is app.screen.query_one("#pane-2"))
        await pilot.pause(0.1)
        assert sorted(map(str, drawn)) == ["pane-1", "pane-2"] and whole == []
        titles = [app.screen.query_one(f"#pane-{n}", Chart).render_line(0) for n in (1, 2)]
        assert len({next(iter(title)).style for title in titles}) == 2


async def test_what_a_key_draws_leaves_no_strips_to_the_garbage_collector(store: RunStore, make_run: Any) -> None:
    run, _ = make_run("demo", 40, phase="finished")
    app = MlaApp(store, run.id)
    async with app.run_test(size=(160, 48)) as pilot:
        await opened(pilot, app, 40)
        gc.collect()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for _ in range(3):
                await pilot.press("i", "u")
            gc.collect()
            strips = [garbage for garbage in gc.garbage if isinstance(garbage, Strip) and not garbage.text.isspace()]
            assert strips == []
        finally:
            gc.set_debug(0)
            gc.garbage.clear()


async def test_without_offload_the_axis_of_the_ram_is_scaled_to_what_moves(store: RunStore, make_run: Any) -> None:
    run, writer = make_run("demo", 3, phase="running")
    for used in (400, 410):
        sample: dict[str, Any] = {"rss": [100 << 20] * 2, "ram_used": [used << 20] * 2, "ram_total": [64 << 30] * 2}
        writer.write(Telemetry(**sample))
    app = MlaApp(store, run.id)
    async with app.run_test(size=(120, 30)) as pilot:
        await until(pilot, lambda: "RAM 410 MiB of 64.0 GiB · offloaded 0" in on_screen(app, "#pane-3"))
        labels = [line[:6].strip() for line in on_screen(app, "#pane-3").splitlines()[1:]]
        numbers = [float(label) for label in labels if label.replace(".", "").isdigit()]
        assert "MiB" in labels and "step" in labels and min(numbers) >= 390
        assert "no GPU · process memory 100 MiB" in on_screen(app, "#pane-2")
