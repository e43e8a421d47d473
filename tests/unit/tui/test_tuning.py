"""Live tuning: levers, forecast, form and requests."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from textual.pilot import Pilot
from textual.widgets import Input

from engine.events import commands
from engine.events.requests import SetRequest
from engine.events.run_dir import RunDir
from engine.events.types import Oom, Spec, State
from engine.host.process import Lock
from engine.runs.store import RunStore
from tests.unit.tui import screen_text
from tests.unit.tui.helpers import on_screen, selected_row, text_of, until
from tui.app.app import MlaApp
from tui.app.screens.confirm import ConfirmScreen
from tui.app.screens.monitor import MonitorScreen
from tui.app.screens.tuning import TuningScreen
from tui.app.widgets.lever_list import LeverList

GIB = 1 << 30


@asynccontextmanager
async def tuning(store: RunStore, make_run: Any) -> AsyncIterator[tuple[MlaApp, Pilot[Any], RunDir]]:
    """Open live tuning on an active run and wait for the first forecast."""
    run, _ = make_run("demo", 5, phase="running")
    app = MlaApp(store, run.id)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("e")
        await until(pilot, lambda: isinstance(app.screen, TuningScreen))
        await until(pilot, lambda: "GiB" in on_screen(app, "#forecast"))
        yield app, pilot, run


async def test_tuning_keeps_the_sequences_per_step(store: RunStore, make_run: Any) -> None:
    async with tuning(store, make_run) as (app, pilot, run):
        await pilot.press("2")
        await until(pilot, lambda: app.screen.query_one("#accum", Input).value == "4")
        await pilot.press("backspace", "3")
        await until(pilot, lambda: "micro can be 1, 2, 4, 8" in text_of(app, "#verdict"))
        await pilot.press("enter")
        assert isinstance(app.screen, TuningScreen)
        await pilot.press("q")
        await until(pilot, lambda: isinstance(app.screen, MonitorScreen))
    assert not run.commands_path.exists()


async def test_tuning_shows_earlier_edits(store: RunStore, make_run: Any) -> None:
    run, writer = make_run("demo", 5, phase="running")
    writer.write(Spec(step=3, values={"batch.micro": 4, "batch.context": 128, "optim.lr_scale": 0.5}))
    app = MlaApp(store, run.id)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("e")
        await until(pilot, lambda: isinstance(app.screen, TuningScreen))
        assert app.screen.query_one("#micro", Input).value == "4"
        await until(pilot, lambda: "micro 4 × accum 2, context 128, lr_scale 0.5" in drawn(app))
        writer.write(State(phase="saving", reason=""))
        await until(pilot, lambda: "saving" in drawn(app))  # above the form
        await pilot.press("q")
        await until(pilot, lambda: isinstance(app.screen, MonitorScreen))
    assert not run.commands_path.exists()


async def test_tuning_accepts_what_the_command_accepts(store: RunStore, make_run: Any) -> None:
    async with tuning(store, make_run) as (app, pilot, run):
        before = on_screen(app, "#forecast")
        await pilot.press("tab", "tab", "tab", *"context=512")
        await until(pilot, lambda: on_screen(app, "#forecast") != before)
        await pilot.press(*" lrscale=2")
        await until(pilot, lambda: "did you mean optim.lr_scale" in text_of(app, "#verdict"))
        await pilot.press("enter")
        assert isinstance(app.screen, TuningScreen)
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, MonitorScreen))
    assert not run.commands_path.exists()


async def test_a_change_of_the_context_asks_before_it_is_unlocked(store: RunStore, make_run: Any) -> None:
    async with tuning(store, make_run) as (app, pilot, run):
        before = on_screen(app, "#forecast")
        await pilot.press("tab", "tab", *"512")
        await until(pilot, lambda: on_screen(app, "#forecast") != before)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        assert "4,096 tokens instead of 2,048: later losses" in " ".join(drawn(app).split())
        await pilot.press("enter")  # Cancel has the focus
        await until(pilot, lambda: isinstance(app.screen, TuningScreen))
        assert app.screen.query_one("#context", Input).value == "512" and not run.commands_path.exists()
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        lock = Lock(run.supervisor_lock)  # its supervisor is alive, and reads the requests from the file
        assert lock.acquire()
        await pilot.press("tab", "enter")
        await until(pilot, run.commands_path.exists, 20)
        lock.release()
    (sent,) = commands.CommandReader(run.commands_path, run.log_path).poll()
    assert sent.request == SetRequest(changes={"batch.context": 512}, unlock=True)


async def test_a_selected_lever_fills_the_form(store: RunStore, make_run: Any) -> None:
    async with tuning(store, make_run) as (app, pilot, run):
        await until(pilot, lambda: "micro 8→4, accum 1→2" in on_screen(app, LeverList))
        before = on_screen(app, "#forecast")
        await pilot.press("k", "j")
        while "micro 8→4" not in selected_row(app.screen.query_one(LeverList)):
            await pilot.press("j")
        await until(pilot, lambda: app.screen.query_one("#micro", Input).value == "4")
        assert app.screen.query_one("#accum", Input).value == "2"
        await until(pilot, lambda: on_screen(app, "#forecast") != before)
        while "restart" not in selected_row(app.screen.query_one(LeverList)):
            await pilot.press("j")
        await until(pilot, lambda: "needs a restart" in text_of(app, "#verdict"))
        await pilot.press("enter")
        assert isinstance(app.screen, TuningScreen)  # a restart cannot be applied to an active run
        assert app.screen.query_one("#micro", Input).value == "8"
        await pilot.press("2")  # a digit goes to the micro-batch
        await until(pilot, lambda: "unchanged" in selected_row(app.screen.query_one(LeverList)))
        await until(pilot, lambda: "needs a restart" not in text_of(app, "#verdict"))
    assert not run.commands_path.exists()


async def test_an_out_of_memory_error_is_shown_and_a_lever_that_fits_well_is_selected(
    store: RunStore, make_run: Any
) -> None:
    run, writer = make_run("demo", 5, phase="running")
    app = MlaApp(store, run.id)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: isinstance(app.screen, MonitorScreen))
        parts = {"activations": GIB // 4, "logits": GIB // 8, "process": GIB // 2}
        oom: dict[str, Any] = {"where": "backward", "wanted": GIB // 32, "action": "ask", "micro": 8, "accum": 1}
        asked = writer.write(Oom(**oom, text="", parts=parts, capacity=620 << 20))
        writer.write(State(phase="paused", reason="out of memory in backward"))
        await until(pilot, lambda: isinstance(app.screen, TuningScreen))
        failed = "896 of 620 MiB predicted at the OOM  276 MiB over"
        await until(pilot, lambda: failed in on_screen(app, "#failed"))
        await until(pilot, lambda: "micro 8→" in selected_row(app.screen.query_one(LeverList)))
        # With micro 4 the forecast is 549 MiB of 620: more than nine tenths of a host this small would be tight.
        await until(pilot, lambda: app.screen.query_one("#micro", Input).value == "4")
        at = time.strftime("automatic at %H:%M:%S", time.localtime(asked.t + 600))
        assert text_of(app, ".tuning-title").endswith(at)  # also where the dialog covers the notice
        await pilot.press("q")
        await until(pilot, lambda: isinstance(app.screen, MonitorScreen))
        line = r"Out of memory \(backward\) · e reduce memory · r retry · automatic at \d\d:\d\d:\d\d"
        await until(pilot, lambda: re.search(line, on_screen(app, "Notice")) is not None)
        await pilot.press("e")
        await until(pilot, lambda: isinstance(app.screen, TuningScreen))
        await until(pilot, lambda: app.screen.query_one("#micro", Input).value == "4")
        app.screen.query_one("#context", Input).value = "512"
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        writer.write(State(phase="running", reason=""))  # answered elsewhere, below what asks again
        await until(pilot, lambda: isinstance(app.screen, MonitorScreen))
        await until(pilot, lambda: "Out of memory" not in on_screen(app, "Notice"))
    assert not run.commands_path.exists()


async def test_tuning_follows_the_size_of_the_terminal(store: RunStore, make_run: Any) -> None:
    async with tuning(store, make_run) as (app, pilot, _):
        await until(pilot, lambda: "micro 8→4, accum 1→2" in on_screen(app, LeverList))
        assert "× 8 sequences" in (wide := drawn(app)) and "checkpointing full" in wide
        await pilot.resize_terminal(60, 20)
        await until(pilot, lambda: "sequences" not in drawn(app))
        assert "micro 8→4, accum 1→2" in (small := drawn(app)) and "Enter applies" in small
        assert re.search(r"GiB available +│", small)  # no word is cut
        app.screen.query_one("#also", Input).value = "foo"
        await until(pilot, lambda: "other edits foo: write key=value" in drawn(app))
        app.screen.query_one("#also", Input).value = "lr_scale=-1"
        await until(pilot, lambda: "other edits: optim.lr_scale: -1 is not in 0..1000" in drawn(app))
        for field, value in (("micro", "4"), ("accum", "2"), ("also", "batch.micro=2")):
            app.screen.query_one(f"#{field}", Input).value = value
        await until(pilot, lambda: "other edits batch.micro: is given twice, as" in on_screen(app, "#verdict"))
        app.screen.query_one("#also", Input).value = "stop_step=999"
        await until(pilot, lambda: "stop_step: 999 is beyond the last step, 300" in on_screen(app, "#verdict"))
        app.screen.query_one("#also", Input).value = "stop_step=2"
        await until(pilot, lambda: "stop_step: 2 is behind the run" in on_screen(app, "#verdict"))
        for field, value in (("micro", "8"), ("accum", "1"), ("also", "")):
            app.screen.query_one(f"#{field}", Input).value = value
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: "× 8 sequences" in drawn(app) and "checkpointing full" in drawn(app))


def drawn(app: MlaApp) -> str:
    return screen_text.text(screen_text.cells(app))
