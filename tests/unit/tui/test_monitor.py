"""Charts and log of the monitor, through keys and mouse, on real run directories."""

from __future__ import annotations

from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static

from engine.events import commands, reverse_reader
from engine.events.log_index import LogIndex
from engine.events.requests import ResumeRequest
from engine.events.types import Checkpoint, Edit, Log, Memory, Oom, State, Step, Telemetry, Val
from engine.host.process import Lock
from engine.runs import client
from engine.runs.store import RunStore
from tests.unit.tui.helpers import on_screen, until
from tui.app.app import MlaApp
from tui.app.screens.confirm import ConfirmScreen
from tui.app.screens.help import HelpScreen
from tui.app.screens.home import HomeScreen
from tui.app.screens.monitor import MonitorScreen
from tui.app.screens.pane_picker import PanePicker
from tui.app.settings import load as load_settings
from tui.app.widgets.bars import Heading, Notice
from tui.app.widgets.chart import Chart
from tui.app.widgets.cursor_values import CursorValues
from tui.app.widgets.log_view import LogView
from tui.app.widgets.status_line import StatusLine
from tui.app.widgets.text_pane import TextPane


def step(number: int, loss: float = 2.0, **fields: Any) -> dict[str, Any]:
    measured = {"step": number, "loss": loss, "lr": 3e-3, "grad_norm": 1.5, "tok_s": 4000.0, "step_s": 0.5}
    return {**measured, "micro": 8, "accum": 1, "context": 256, "host_states": 0, **fields}


def monitor(app: MlaApp) -> MonitorScreen:
    assert isinstance(app.screen, MonitorScreen)
    return app.screen


async def opened(pilot: Pilot[Any], app: MlaApp, steps: int) -> None:
    await until(pilot, lambda: f"({steps})" in on_screen(app, "#pane-1"))


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
            writer.write(Step(**step(number)))
        await until(pilot, lambda: panes[0].visible_range[1] >= 130)
        await pilot.press("h")
        assert "steps 99–124 of 130" in on_screen(app, "#pane-1")
        await pilot.press("u", "u", "u", "u")
        await until(pilot, lambda: "(130)" in on_screen(app, "#pane-1"))
        await pilot.press("i", "h", "0")
        assert "(130)" in on_screen(app, "#pane-1")


async def test_the_cursor_shows_and_copies_the_values_of_every_pane(store: RunStore, make_run: Any) -> None:
    run, writer = make_run("demo", 100, phase="running")
    writer.write(Step(**step(101, loss=7.654)))
    app = MlaApp(store, run.id)
    async with app.run_test(size=(120, 30)) as pilot:
        await opened(pilot, app, 101)
        await pilot.press("C")
        assert app.clipboard == ""
        await pilot.press("v")
        assert "at step 51" in on_screen(app, "#pane-1") and "at step 51" in on_screen(app, "#pane-4")
        assert "step 51 ·" in on_screen(app, CursorValues)
        assert "│" in "".join(line[7:] for line in on_screen(app, "#pane-1").splitlines())
        while monitor(app).viewport.cursor != 101:
            await pilot.press("right")
        assert "loss 7.654 · at step 101" in on_screen(app, "#pane-1")
        await pilot.press("C")
        names, values = (line.split("\t") for line in app.clipboard.splitlines())
        copied = dict(zip(names, values, strict=True))
        assert copied["step"] == "101" and copied["loss"] == "7.654" and copied["tok_s"] == "4000"
        await pilot.press("left", "escape")
        assert not app.screen.query_one(CursorValues).display
        assert isinstance(app.screen, MonitorScreen)
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))


@pytest.mark.parametrize("width", [60, 80])
async def test_a_long_reason_is_read_in_full_on_the_monitor(store: RunStore, make_run: Any, width: int) -> None:
    run, writer = make_run("demo", 5, phase="running")
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


async def test_the_console_is_read_from_the_monitor(store: RunStore, make_run: Any) -> None:
    run, _ = make_run("demo", 5, phase="failed")
    app = MlaApp(store, run.id)
    async with app.run_test(size=(60, 20)) as pilot:
        await pilot.press("t")
        await until(pilot, lambda: "the run printed nothing" in on_screen(app, TextPane))
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
        reason = f"the data has changed: train/a.bin is new; restore it and the run continues, or {command}"
    writer.write(State(phase="needs-attention", reason=reason))
    app = MlaApp(store, run.id)
    async with app.run_test(size=(100, 24)) as pilot:
        answer = "r continues with the data as it is" if data_changed else "r tries again"
        await until(pilot, lambda: answer in on_screen(app, Notice))
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
        assert "× out of memory (backward)" in on_screen(app, CursorValues)
        await pilot.press("m", "m")
        assert "▲ edit micro 12 → 6" in on_screen(app, CursorValues) and "step 20" in on_screen(app, CursorValues)
        await pilot.press("M")
        assert "▪ checkpoint" in on_screen(app, CursorValues)


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
        writer.write(Step(**step(2001, loss=3.21)))
        await until(pilot, lambda: monitor(app).viewport.points("loss")[-1][0] == 2001)


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


async def test_gpu_sensors_and_tokens_left_are_shown(store: RunStore, make_run: Any) -> None:
    run, writer = make_run("demo", 3, phase="running")
    writer.write(Memory(parts={"weights": 3 << 30, "activations": 5 << 30}, measured=None, micro=8, context=256))
    writer.write(Val(step=3, loss=2.0, bits_per_byte=0.876))
    writer.write(Step(**step(4, mfu=0.43)))
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
        assert "0.876 bits/byte" in on_screen(app, "#pane-1")
        assert "MFU 43%" in on_screen(app, "#pane-mfu")
        assert "tokens left 606k" in on_screen(app, "StatusLine")  # 296 steps of 8 × 256
        for width in range(40, 160):  # a value without room for its label is left out
            first = "".join(text for text, _ in app.screen.query_one(StatusLine).draw(width, 2)[0])
            assert ("606k" in first) <= ("tokens left 606k" in first), first


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


async def test_more_panes_are_shown_where_they_fit_and_paged_where_not(store: RunStore, make_run: Any) -> None:
    run, writer = make_run("demo", 40, phase="running")
    writer.write(Step(**step(41, mfu=0.43, data_share=0.02)))
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
    async with again.run_test(size=(160, 48)) as pilot:
        await until(pilot, lambda: isinstance(again.screen, MonitorScreen))
        await until(pilot, lambda: [pane.id for pane in again.screen.query(Chart)] == chosen)


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
