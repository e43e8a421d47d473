"""Notifications about runs that are not on screen."""

from __future__ import annotations

import os
from typing import Any

import pytest

from engine.events.types import Alert, Link, Oom, State, Step
from engine.host.files import write_json
from engine.host.struct_json import to_dict
from engine.runs.store import RunStore
from tests.unit.tui.helpers import on_screen, toasts, until
from tui.app.app import MlaApp
from tui.app.screens.confirm import ConfirmScreen
from tui.app.screens.home import HomeScreen
from tui.app.screens.monitor import MonitorScreen
from tui.app.state import run_watcher
from tui.app.state.run_watcher import RunWatcher


def texts(watcher: RunWatcher) -> list[str]:
    return [notification.text for notification in watcher.poll()]


def test_only_new_events_are_reported_and_each_once(store: RunStore, make_run: Any) -> None:
    make_run("old", 3)
    _, writer = make_run("demo", 3, phase="running")
    watcher = RunWatcher(store)
    assert texts(watcher) == []
    writer.write(Step(step=4, loss=2.0))
    writer.write(Alert(what="nan", text="the loss of step 5 is not finite"))
    writer.write(Alert(what="pressure", text="memory is short"))
    writer.write(Oom(where="forward", action="auto"))
    assert texts(watcher) == ["demo: nan: the loss of step 5 is not finite"]
    writer.write(Alert(what="stall", text="no step for 90 s"))
    writer.write(Oom(where="forward", action="ask"))
    writer.write(State(phase="paused", reason="out of memory"))
    assert texts(watcher) == ["demo: stall: no step for 90 s", "demo: out of memory, needs attention"]
    writer.write(State(phase="failed", reason="killed by signal 9"))
    assert [(n.text, n.needs_attention) for n in watcher.poll()] == [("demo: failed: killed by signal 9", True)]
    assert texts(watcher) == []


def test_a_new_run_is_reported_from_its_beginning(store: RunStore, make_run: Any) -> None:
    watcher = RunWatcher(store)
    assert texts(watcher) == []  # the directory does not exist yet
    make_run("first", 3)
    assert texts(watcher) == ["first: finished"]
    run, _ = make_run("second", 3, phase="stopped")
    assert texts(watcher) == ["second: stopped"]
    make_run("third", 3, phase="running")
    os.rename(run.path, store.home / "gone")
    assert texts(watcher) == []


def test_a_removed_log_is_not_reported(store: RunStore, make_run: Any) -> None:
    """A run may be removed after its size was checked and before its log is read."""
    run, _ = make_run("demo", 3, phase="running")
    _, other = make_run("other", 3, phase="running")
    watcher = RunWatcher(store)
    watcher.poll()
    run.log_path.unlink()
    run.log_path.mkdir()
    other.write(State(phase="finished", reason=""))
    assert texts(watcher) == ["other: finished"]


def test_a_partial_line_is_read_once_it_is_complete(store: RunStore, make_run: Any) -> None:
    run, _ = make_run("demo", 3, phase="running")
    watcher = RunWatcher(store)
    watcher.poll()
    line = b'{"t":1.0,"kind":"state","attempt":1,"phase":"finished","reason":""}\n'
    with run.log_path.open("ab") as log:
        log.write(line[:30])
    assert texts(watcher) == []
    with run.log_path.open("ab") as log:
        log.write(line[30:])
    assert texts(watcher) == ["demo: finished"]


def test_a_run_whose_processes_were_killed_is_reported(
    store: RunStore, make_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, writer = make_run("demo", 3, phase="running")
    watcher = RunWatcher(store)
    watcher.poll()
    monkeypatch.setattr(run_watcher, "SILENCE_TIMEOUT", 0.0)
    writer.write(Step(step=4, loss=2.0))
    assert texts(watcher) == [] == texts(watcher)  # silent, but its trainer is alive
    write_json(run.state_path, {**to_dict(run.state()), "trainer": None})
    assert texts(watcher) == ["demo: cut-off: neither trainer nor supervisor is alive"]
    assert texts(watcher) == []


def test_a_poll_is_one_stat_per_run(store: RunStore, make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(5):
        make_run(f"run{i}", 3, phase="running")
    watcher = RunWatcher(store)
    watcher.poll()
    checked: list[str] = []
    real = os.stat

    def stat(path: str) -> os.stat_result:
        checked.append(path)
        return real(path)

    monkeypatch.setattr("tui.app.state.run_watcher.os.stat", stat)
    monkeypatch.setattr("tui.app.state.run_watcher.os.pread", None)
    assert texts(watcher) == []
    assert len(checked) == 6  # one per run and one of their directory


@pytest.fixture
def bells(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    rung: list[bool] = []
    monkeypatch.setattr(run_watcher, "POLL_INTERVAL", 0.02)
    monkeypatch.setattr("textual.app.App.bell", lambda app: rung.append(True))
    return rung


async def test_brackets_in_a_notification_are_not_markup(store: RunStore) -> None:
    line = "run '[/x]': no [bold]such[/bold] run"
    app = MlaApp(store)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(pilot, lambda: "press n" in on_screen(app, "#runs"))
        app.screen.notify(line, severity="error")
        await until(pilot, lambda: line in on_screen(app, "Toast"))


async def test_the_end_of_another_run_is_a_toast_and_a_bell(store: RunStore, make_run: Any, bells: list[bool]) -> None:
    watched, mine = make_run("mine", 3, phase="running")
    _, other = make_run("other", 3, phase="running")
    app = MlaApp(store, watched.id)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "(3)" in on_screen(app, "#pane-1"))
        await pilot.press("S")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        mine.write(Alert(what="nan", text="seen on its own screen"))
        await until(pilot, lambda: app.screen_stack[-2].view.step == 3)  # type: ignore[attr-defined]
        other.write(State(phase="finished", reason=""))
        await until(pilot, lambda: bool(toasts(app)))
        assert toasts(app) == ["other: finished"] and bells == [True]
        await pilot.press("q", "q")
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))
        mine.write(State(phase="failed", reason="out of luck"))
        await until(pilot, lambda: len(toasts(app)) == 2)
        assert toasts(app)[1] == "mine: failed: out of luck" and bells == [True, True]


async def test_the_run_on_screen_is_not_reported(store: RunStore, make_run: Any, bells: list[bool]) -> None:
    run, writer = make_run("demo", 3, phase="running")
    messages: list[Any] = []
    app = MlaApp(store, run.id)
    async with app.run_test(size=(80, 24), message_hook=lambda m: messages.append(type(m))) as pilot:
        await until(pilot, lambda: isinstance(app.screen, MonitorScreen))
        await until(pilot, lambda: "(3)" in on_screen(app, "#pane-1"))
        writer.write(State(phase="finished", reason=""))
        await until(pilot, lambda: MlaApp.Notified in messages)
        await until(pilot, lambda: "finished" in on_screen(app, "StatusLine"))
        assert not toasts(app) and not bells


async def test_a_lost_connection_is_shown_and_the_data_stays(store: RunStore, make_run: Any) -> None:
    run, _ = make_run("demo", 20, phase="running")
    app = MlaApp(store, run.id)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "(20)" in on_screen(app, "#pane-1"))
        for up in (True, False):  # the first connection is not reported
            app.screen.post_message(MonitorScreen.NewEvent(None, Link(t=1.0, up=up)))
        await until(pilot, lambda: "connection lost · data kept" in on_screen(app, "Heading"))
        assert "(20)" in on_screen(app, "#pane-1") and "connection lost" in on_screen(app, "#log")
        app.screen.post_message(MonitorScreen.NewEvent(None, Link(t=2.0, up=True)))
        await until(pilot, lambda: "connection lost" not in on_screen(app, "Heading"))
        assert "reconnected" in on_screen(app, "#log")
