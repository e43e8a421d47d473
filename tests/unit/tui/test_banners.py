"""The banner of the monitor: why a run needs attention with the next keys, and what happened since the user left.

Out of memory is in test_tuning.py, a run that was cut off in tests/e2e/test_cut_off.py.
"""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from engine.events.types import Alert, Checkpoint, Event, State, Step
from engine.runs.store import RunStore
from tests.unit.tui.conftest import step_record
from tests.unit.tui.helpers import on_screen, until
from tui.app.app import MlaApp
from tui.app.screens.console import ConsoleScreen
from tui.app.screens.monitor import MonitorScreen
from tui.app.state import since_left
from tui.app.widgets.bars import Notice
from tui.app.widgets.status_line import StatusLine

ALERT = "the loss of the step has been the same for a long while, and longer than a line of a terminal is"


@pytest.mark.parametrize(
    ("event", "shown", "keys"),
    [
        (Alert(what="stall", text=ALERT), f"stalled: {ALERT}", "t its output · S stops it"),
        (Alert(what="nan", text=ALERT), f"not finite: {ALERT}", "t its output · S stops it"),
        (Alert(what="device_lost", text=ALERT), f"the device is lost: {ALERT}", "t its output · S stops it"),
        (State(phase="failed", reason=ALERT), f"failed: {ALERT}", "a terminal is t its output"),
        (State(phase="needs-attention", reason=ALERT), f"needs-attention: {ALERT}", "r tries again · t its output"),
    ],
    ids=["stalled", "nan", "device", "failed", "needs-attention"],
)
async def test_a_banner_has_the_whole_reason_and_the_next_keys(
    store: RunStore, make_run: Any, event: Event, shown: str, keys: str
) -> None:
    run, log = make_run("demo", 5, phase="running")
    run.console_path.write_text("Traceback\n")
    app = MlaApp(store, run.id)
    async with app.run_test(size=(60, 20)) as pilot:
        await until(pilot, lambda: "(5)" in on_screen(app, "#pane-1"))
        log.write(event)
        await until(pilot, lambda: shown in " ".join(on_screen(app, Notice).split()))
        lines = on_screen(app, Notice).splitlines()
        assert keys in " ".join(on_screen(app, Notice).split()) and len(lines) > 1
        if isinstance(event, State):  # Enter on a broken run is its output
            await pilot.press("enter")
            await until(pilot, lambda: isinstance(app.screen, ConsoleScreen))
        elif isinstance(event, Alert):
            if event.what == "stall":  # its trainer may read no request
                await until(pilot, lambda: "stalled" in on_screen(app, StatusLine))
                await pilot.press("S")
                await until(pilot, lambda: bool(app.screen.query("#kill")))
                await pilot.press("q")
            log.write(Step(**step_record(6)))
            await until(pilot, lambda: not app.screen.query_one(Notice).display)


async def test_a_banner_offers_the_checkpoints_there_are_and_forgets_an_alert_that_is_over(
    store: RunStore, make_run: Any
) -> None:
    run, log = make_run("demo", 5, phase="running")
    log.write(Alert(what="stall", text=ALERT))
    log.write(Step(**step_record(6)))
    app = MlaApp(store, run.id)
    async with app.run_test(size=(60, 20)) as pilot:
        await until(pilot, lambda: "(6)" in on_screen(app, "#pane-1") and "stall" in on_screen(app, "#log"))
        assert not app.screen.query_one(Notice).display
        log.write(Alert(what="stall", text=ALERT))
        log.write(State(phase="needs-attention", reason=ALERT))
        await until(pilot, lambda: "r tries again" in on_screen(app, Notice))
        assert "its output" not in on_screen(app, Notice)  # it has printed nothing
        log.write(Checkpoint(step=5, ok=True, bytes=1, path="ckpt_step_5"))
        log.write(State(phase="failed", reason=ALERT))
        await until(pilot, lambda: "o resume a checkpoint" in on_screen(app, Notice))


async def test_since_you_left_stays_until_it_is_closed(store: RunStore, make_run: Any) -> None:
    run, log = make_run("demo", 50, phase="running")
    (run.path / since_left.FILE).write_text(json.dumps({"t": time.time() - 7200, "step": 20, "loss": 7.5}))
    app = MlaApp(store, run.id)
    async with app.run_test(size=(80, 24)) as pilot:
        text = "since you left 2h ago: steps 20 to 50, smooth loss 7.500 → "
        await until(pilot, lambda: text in " ".join(on_screen(app, Notice).split()))
        for step in range(51, 60):
            log.write(Step(**step_record(step)))
        await until(pilot, lambda: "(59)" in on_screen(app, "#pane-1"))
        assert "Esc closes" in on_screen(app, Notice)
        await pilot.press("v", "escape")
        assert app.screen.query_one(Notice).display
        await pilot.press("escape")
        assert not app.screen.query_one(Notice).display and isinstance(app.screen, MonitorScreen)
