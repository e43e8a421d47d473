"""The read-only app."""

from __future__ import annotations

from typing import Any

import pytest
from textual.widgets import Input, OptionList

from engine.events.types import Oom, State
from engine.runs.store import RunStore
from tests.unit.tui.helpers import on_screen, toasts, until
from tui.app.app import MlaApp
from tui.app.screens.help import HelpLines, HelpScreen
from tui.app.screens.monitor import MonitorScreen
from tui.cli import main


async def test_key_bar_help_and_palette_leave_out_refused_actions(store: RunStore, make_run: Any) -> None:
    run, _ = make_run("demo", 3, phase="running")
    app = MlaApp(store, run.id, read_only=True)
    async with app.run_test(size=(100, 80)) as pilot:
        await until(pilot, lambda: "Maximize" in on_screen(app, "KeyBar"))
        assert not {"Live", "Pause", "Stop"} & set(on_screen(app, "KeyBar").split())
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        text = on_screen(app, HelpLines)
        assert "Maximize" in text and "Pause" not in text and "Stop" not in text
        await pilot.press("q", "ctrl+p", *"run")
        await until(pilot, lambda: any(found.option_count for found in app.screen.query(OptionList)))
        found = app.screen.query_one(OptionList)
        offered = " ".join(str(found.get_option_at_index(i).prompt) for i in range(found.option_count))
        assert "Back" in offered and "Stop" not in offered and "Pause" not in offered


async def test_enter_in_a_field_of_the_form_does_not_launch(store: RunStore) -> None:
    app = MlaApp(store, read_only=True)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("n")
        await until(pilot, lambda: bool(app.screen.query("#name")))
        app.screen.query_one("#name", Input).focus()
        await pilot.press("enter")
        await until(pilot, lambda: bool(toasts(app)))
        assert "launch is refused" in toasts(app)[0]
    assert store.ids() == []


async def test_a_read_only_app_does_not_answer_an_out_of_memory_error(store: RunStore, make_run: Any) -> None:
    run, writer = make_run("demo", 3, phase="running")
    app = MlaApp(store, run.id, read_only=True)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "(3)" in on_screen(app, "#pane-1"))
        parts: dict[str, int] = {}
        writer.write(Oom(where="forward", wanted=1 << 30, parts=parts, action="ask", micro=8, accum=1))
        writer.write(State(phase="paused", reason="out of memory"))
        await until(pilot, lambda: "Out of memory (forward) · automatic at" in on_screen(app, "Notice"))
        assert isinstance(app.screen, MonitorScreen)


@pytest.mark.parametrize(
    "words",
    [["--read-only"], ["--read-only", "attach", "x"], ["attach", "x", "--read-only"], ["attach", "--read-only"]],
)
def test_the_flag_may_come_before_or_after_the_command(words: list[str]) -> None:
    args = main.parser_of(words).parse_args(words)
    assert args.read_only and not args.low_bandwidth
    both = [*words, "--low-bandwidth"]
    assert main.parser_of(both).parse_args(both).low_bandwidth


def test_a_command_that_changes_something_refuses_the_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main.main(["--read-only", "stop", "latest"])
    assert "--read-only and --low-bandwidth are for the app" in capsys.readouterr().err


def test_attach_starts_no_supervisor_and_runs_no_hook(
    store: RunStore, make_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = make_run("demo", 3, phase="running")
    asked: list[Any] = []

    def run_app(store: RunStore, id: str, **flags: bool) -> int:
        asked.append(flags)
        return 0

    monkeypatch.setattr("engine.runs.supervision.ensure_supervisor", asked.append)
    monkeypatch.setattr("engine.runs.supervision.run_pending_hooks", asked.append)
    monkeypatch.setattr("tui.app.start.run_app", run_app)
    assert main.main(["attach", run.id, "--read-only", "--low-bandwidth"]) == 0
    assert asked == [{"read_only": True, "low_bandwidth": True}]
