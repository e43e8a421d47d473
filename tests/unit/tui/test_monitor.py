"""The monitor as a whole: console, resume, spec, every key at every size."""

from __future__ import annotations

from typing import Any

import pytest
from textual.widgets import Static

from engine.events import commands
from engine.events.labels import change_name
from engine.events.requests import ResumeRequest
from engine.events.types import Spec, State
from engine.host.process import Lock
from engine.runs import client
from engine.runs.store import RunStore
from tests.unit.tui.helpers import monitor, on_screen, opened, until
from tui.app.app import MlaApp
from tui.app.screens.confirm import ConfirmScreen
from tui.app.screens.monitor import MonitorScreen
from tui.app.widgets.bars import Heading, KeyBar, Notice
from tui.app.widgets.log_view import LogView
from tui.app.widgets.spec_panel import SpecPanel
from tui.app.widgets.text_pane import TextPane


async def test_the_console_is_read_from_the_monitor(store: RunStore, make_run: Any) -> None:
    run, _ = make_run("demo", 5, phase="failed")
    change_name(run.path, "best")
    app = MlaApp(store, run.id)
    async with app.run_test(size=(60, 20)) as pilot:
        await pilot.press("t")
        await until(pilot, lambda: "the run printed nothing" in on_screen(app, TextPane))
        assert "console.log · best" in on_screen(app, Heading)
        lines = "".join(f"line {n}\n" for n in range(20_000))
        run.console_path.write_bytes(f"{lines}10%\r20%\r\n\x1b[1mMemoryError\x1b[0m \x9b31m\xff\n".encode("latin-1"))
        await until(pilot, lambda: "MemoryError" in on_screen(app, TextPane))
        shown = on_screen(app, TextPane).rstrip().splitlines()
        assert [line.strip() for line in shown[-4:-1]] == ["line 19999", "10%", "20%"]
        assert "\x1b" not in shown[-1] and "mla-tui logs" in on_screen(app, Heading)
        await pilot.press("pageup")
        assert "line 19999" not in on_screen(app, TextPane)
        await pilot.press("q")
        assert isinstance(app.screen, MonitorScreen)


@pytest.mark.parametrize("data_changed", [True, False])
async def test_r_continues_a_run_that_needs_attention(
    store: RunStore, make_run: Any, monkeypatch: pytest.MonkeyPatch, data_changed: bool
) -> None:
    monkeypatch.setattr(client, "POLL_INTERVAL", 0.01)
    run, writer = make_run("demo", 5, phase="needs-attention")
    lock = Lock(run.supervisor_lock)  # its supervisor is alive, and reads the requests from the file
    assert lock.acquire()
    reason = "/models/demo: the checkpoints of this run are missing; put it back and the run continues"
    if data_changed:
        command = f"continue with the data as it is: mla-tui resume {run.id} --data-changed"
        reason = f"the data has changed: train/a.bin is new; restore the data and the run continues, or {command}"
    writer.write(State(phase="needs-attention", reason=reason))
    app = MlaApp(store, run.id)
    async with app.run_test(size=(100, 24)) as pilot:
        answer = "r continues with the data as it is" if data_changed else "r tries again"
        await until(pilot, lambda: answer in on_screen(app, Notice))
        assert "Resume" in on_screen(app, KeyBar) and "Pause" not in on_screen(app, KeyBar)
        await pilot.press("p", "c", "e")  # for which it has no trainer
        await until(pilot, lambda: on_screen(app, LogView).count("trains no further until it resumes") == 3)
        await pilot.press("r")
        if data_changed:
            assert isinstance(app.screen, ConfirmScreen)
            question = " ".join(on_screen(app, Static).split())
            assert question == "demo: the data has changed: train/a.bin is new. Continue with the data as it is?"
            await pilot.press("tab", "enter")
        await until(pilot, run.commands_path.exists)
    lock.release()
    (sent,) = commands.CommandReader(run.commands_path, run.log_path).poll()
    assert sent.request == ResumeRequest(data_changed=data_changed)


@pytest.mark.parametrize(("size", "backend"), [((60, 20), "torch"), ((80, 24), "mlx"), ((300, 100), "torch")])
async def test_every_key_at_every_size(
    store: RunStore, make_run: Any, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], backend: str
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    run, _ = make_run("demo", 40, phase="running", backend=backend)
    app = MlaApp(store, run.id)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: "loss" in on_screen(app, "#pane-1") and monitor(app).view.step == 40)
        await pilot.press(
            *"iiuhlvhlmM0xxxsysyyaaAA", *"12345zz", "k", "j", "pageup", "pagedown", "g", "G", "w", "escape"
        )
        await pilot.resize_terminal(size[0] + 20, size[1] + 4)
        await pilot.press("i", "C", "escape", "u", "0")
        assert isinstance(app.screen, MonitorScreen)
        await until(pilot, lambda: "(40)" in on_screen(app, "#pane-1"))


async def test_the_spec_is_beside_the_charts_or_in_their_place_with_live_edits_marked(
    store: RunStore, make_run: Any
) -> None:
    run, writer = make_run("demo", 3, phase="running")
    app = MlaApp(store, run.id)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot, app, 3)
        await pilot.press("d")
        await until(pilot, lambda: "sequences" in on_screen(app, SpecPanel))
        assert not app.screen.query_one("#panes").display and not app.screen.query_one(LogView).display
        assert "edited live" not in on_screen(app, SpecPanel)
        writer.write(Spec(step=3, values={"optim.lr_scale": 0.5, "batch.micro": 8}))
        await until(pilot, lambda: "▲ optim.lr_scale  1 → 0.5" in on_screen(app, SpecPanel))
        await pilot.press("G")
        assert "tie_word_embeddings" in on_screen(app, SpecPanel) and "▲" not in on_screen(app, SpecPanel)
        await pilot.press("q")
        assert "loss" in on_screen(app, "#pane-1") and app.focused is app.screen.query_one("#pane-1")
        await pilot.press("d", "2")
        assert app.focused is app.screen.query_one("#pane-2") and not monitor(app).has_class("spec")
        await pilot.resize_terminal(160, 48)
        await pilot.press("d", "g")
        await until(pilot, lambda: "▲ optim" in on_screen(app, SpecPanel) and "loss" in on_screen(app, "#pane-1"))
        await pilot.press("1", "d")
        await until(pilot, lambda: not app.screen.query_one(SpecPanel).display)
        await pilot.press("d", "escape")
        assert isinstance(app.screen, MonitorScreen) and not monitor(app).has_class("spec")
