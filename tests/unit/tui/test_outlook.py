"""What the header says of a run that takes weeks."""

from __future__ import annotations

import time
from typing import Any

import pytest

from engine.events.status import Summary
from engine.events.types import Checkpoint, Edit, Start, Step, Telemetry, Val
from tui.app.state import outlook, since_left
from tui.app.state.outlook import Checkpoints
from tui.app.state.run_view import RunView

NOW = 1_795_600_000.0  # 2026-11-25 09:46:40 UTC


def view_of(steps: int) -> RunView:
    view = RunView(
        Summary(id="a", phase="running", steps=1000, started=NOW - 7200),
        live={"train.stop_step": 900, "train.save_every": 50},
    )
    view.apply(0, Start(t=NOW - 7200, attempt=1))
    for step in range(1, steps + 1):
        t = NOW - 7200 + step * 60
        view.apply(0, Step(t=t, step=step, loss=4.0, step_s=60.0, micro=8, accum=2, context=64, tokens=step * 1024))
        view.apply(None, Telemetry(t=t, power_w=300.0))
    return view


def test_a_run_of_weeks_says_what_it_has_done_and_when_it_ends() -> None:
    view = view_of(100)
    view.apply(0, Val(t=NOW, step=40, loss=3.5))
    view.apply(0, Val(t=NOW, step=80, loss=3.75))
    view.apply(0, Checkpoint(t=NOW - 3 * 3600, ok=True, step=50, bytes=10))
    found = {label: value for label, value, _ in outlook.items(view, Checkpoints(10, 125), NOW)}
    assert found == {
        "smooth loss": "4.000",
        "best val": "3.500 at 40",
        "checkpoint": "3h ago",
        "next at": "150",
        "disk for": "12 checkpoints",
        "tokens": "102k",
        "a day": "1.47M",
        "energy": "0.5 kWh",
    }
    assert view.eta() == pytest.approx(800 * 60)  # to the step at which it stops early
    assert view.elapsed(NOW) == 7200
    view.apply(0, Step(t=NOW, step=899, loss=4.0))
    assert ("next at", "900", 1) in outlook.items(view, Checkpoints(), NOW)  # where it stops
    view.apply(0, Step(t=NOW, step=900, loss=4.0))
    assert "next at" not in {label for label, *_ in outlook.items(view, Checkpoints(), NOW)}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (3600, "10:47"), (86400, "Thu 09:50"), (20 * 86400, "15 Dec 10:00"), (400 * 86400, "30 Dec 2027")],
)
def test_the_end_is_a_date(monkeypatch: pytest.MonkeyPatch, seconds: float | None, text: str) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert outlook.finish_text(NOW, seconds) == text
    monkeypatch.undo()
    time.tzset()


def test_what_happened_since_the_user_left(make_run: Any) -> None:
    run, _ = make_run("demo", 5)
    assert since_left.describe(run, view_of(5), NOW) == ""
    since_left.remember(run, view_of(40), NOW - 7200 + 41 * 60)
    view = view_of(100)
    view.apply(0, Edit(t=NOW - 60, ok=True, step=99, changed={"micro": (8, 4)}))
    assert since_left.describe(run, view, NOW) == (
        "since you left 79m ago: steps 40 to 100, smooth loss 4.000 → 4.000, 1 × edit"
    )
    assert since_left.describe(run, view_of(40), NOW) == ""
    (run.path / since_left.FILE).write_text('{"t": "x"}')
    assert since_left.describe(run, view, NOW) == ""


def test_after_the_clock_was_set_back_no_time_is_made_up(make_run: Any) -> None:
    """By three hours. The checkpoint before it is of a time that has not come yet; the newest is the last one."""
    set_back = NOW - 3 * 3600

    def age() -> str:
        return next(value for label, value, _ in outlook.items(view, Checkpoints(), set_back + 120))

    view = RunView(Summary(id="a", phase="running", steps=1000, started=NOW - 7200))
    view.apply(0, Checkpoint(t=NOW, ok=True, step=50, bytes=10))
    assert age() == "at 50"
    view.apply(0, Checkpoint(t=set_back, ok=True, step=60, bytes=10))
    assert age() == "2m ago"
    assert view.elapsed(set_back) is None and view.elapsed(NOW) == 7200

    run, _ = make_run("demo", 5)
    view.step = 50
    since_left.remember(run, view, NOW)
    view.step = 61
    assert since_left.describe(run, view, set_back) == "since you left: steps 50 to 61, 1 × checkpoint"

    left = [outlook.seconds_left(asked, 600.0, set_back) for asked in (NOW, set_back - 60, set_back - 999)]
    assert left == [600.0, 540.0, 0.0]  # of a question with ten minutes to answer
