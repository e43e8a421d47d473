import time
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from engine.events.history import History
from engine.events.planned import Planned
from engine.events.series import Bucket, Series
from engine.events.status import Summary
from engine.events.types import Checkpoint, CutOff, Edit, Spec, Start, State, Step, Telemetry, Val
from engine.events.wire import HistoryAnswer
from tui.app.screens.panes import first_page
from tui.app.state import outlook
from tui.app.state.outlook import Checkpoints
from tui.app.state.run_view import RunView
from tui.app.state.viewport import Viewport

SUMMARY = Summary(id="20260101-000000-cpu_demo", name="demo", phase="running", steps=300)


def step(number: int, loss: float | None = 2.0, **fields: Any) -> Step:
    return Step(0.0, step=number, loss=loss, step_s=0.5, tok_s=4000.0, **fields)


def test_a_new_attempt_replaces_what_came_after_its_checkpoint() -> None:
    view = RunView(SUMMARY)
    for number in range(1, 131):
        view.apply(None, step(number, 9.0 if number <= 100 else 5.0, micro=4, accum=2))
        if number in (100, 130):
            view.apply(None, Val(t=0.0, step=number, loss=number / 10))
    restart = Start(t=0.0, attempt=2, resumed_from=100)
    view.apply(None, restart)
    assert view.series["loss"].coverage() == (1, 100, 100)
    assert (view.val_loss, view.smooth_loss) == (10.0, 9.0)
    view.apply(None, Val(t=0.0, step=130, loss=13.0), update_charts=False)  # the log is read behind the history
    view.apply(None, restart, update_charts=False)
    view.apply(None, Spec(t=0.0, step=100, values={"batch.sequences": 8, "batch.micro": 8}, accum=1))
    assert (view.val_loss, view.micro, view.accum) == (10.0, 8, 1)
    for number in range(101, 121):
        view.apply(None, step(number, 1.0))
    assert view.series["loss"].coverage() == (1, 120, 120)
    assert [p[2] for p in view.series["loss"].points[-21:]] == [9.0] + [1.0] * 20
    assert view.attempt == 2


def test_values_of_lost_steps_are_not_those_of_the_run() -> None:
    """Between the end of a trainer and the next start; the charts still show what was trained."""
    live = RunView(SUMMARY)
    for number in range(1, 131):
        live.apply(None, step(number, 9.0 if number <= 100 else 5.0, lr=1e-3))
        if number in (100, 130):
            live.apply(None, Val(t=0.0, step=number, loss=number / 10))
        if number == 100:
            live.apply(None, Checkpoint(t=0.0, step=100, ok=True))
    live.apply(None, State(t=0.0, phase="recovering", reason="killed"))
    opened = RunView(replace(SUMMARY, phase="needs-attention", step=100, restarts_at=100, val_loss=10.0))
    buckets = {name: list(one.buckets(1000)) for name, one in live.series.items() if len(one)}
    newest = {name: value for name in buckets if (value := live.series[name].newest) is not None}
    opened.load_history(HistoryAnswer(at=0, part=(0, None), series=buckets, newest=newest))
    for view in (live, opened):
        assert (view.step, view.smooth_loss, view.at_step("lr"), view.at_step("loss")) == (100, 9.0, None, None)
        assert view.last("loss") == 5.0
        assert view.series["loss"].coverage() == (1, 130, 130)
    assert (opened.val_loss, live.val_loss) == (10.0, None)
    live.apply(None, Start(t=0.0, attempt=2, resumed_from=100))
    assert (live.at_step("lr"), live.at_step("loss"), live.val_loss) == (1e-3, 9.0, 10.0)


def test_what_is_left_counts_up_to_the_step_of_an_early_end() -> None:
    view = RunView(replace(SUMMARY, micro=2, accum=1, context=10), live={"train.stop_step": 100})
    view.apply(None, step(40, micro=2, accum=1, context=10))
    assert (view.eta(), view.tokens_left()) == (30.0, 1200)
    view.apply(None, Spec(t=0.0, step=40, values={"train.stop_step": 60}))
    assert (view.eta(), view.tokens_left()) == (10.0, 400)
    view.apply(None, Spec(t=0.0, step=40, values={"train.stop_step": 0}))
    assert (view.last_step, view.eta()) == (300, 130.0)


def test_what_is_left_of_a_restarted_run_counts_the_edits_that_it_makes_again() -> None:
    """Killed behind edits: 60 steps of 20 tokens, 20 of 40, and it stops at 80."""
    view = RunView(replace(SUMMARY, micro=2, accum=2, context=10), live={"train.save_every": 50})
    view.apply(None, step(70, micro=2, accum=2, context=10))
    view.apply(None, Start(t=0.0, attempt=2))
    now = {"batch.sequences": 2, "batch.micro": 2, "batch.context": 10, "train.stop_step": 0, "train.save_every": 50}
    edits = [Planned(60, {"batch.context": 20, "train.save_every": 35}), Planned(65, {"train.stop_step": 80})]
    view.apply(None, Spec(t=0.0, step=0, values=now, accum=1, later=edits))
    view.apply(None, State(t=0.0, phase="running"))
    assert (view.micro, view.accum, view.context) == (2, 1, 10)
    assert (view.step, view.last_step, view.eta(), view.tokens_left()) == (0, 80, 40.0, 60 * 20 + 20 * 40)
    saves = []
    for number in (0, 50, 70):
        view.step = number
        saves.append(view.next_save())
    assert saves == [50, 70, 80]
    view.apply(None, Spec(t=0.0, step=65, values={**now, "train.stop_step": 80}))
    view.step = 65
    assert (view.last_step, view.tokens_left(), view.next_save()) == (80, 300, 80)


def test_a_run_that_does_not_work_or_is_elsewhere_has_no_eta() -> None:
    view = RunView(replace(SUMMARY, restarts_at=40))
    view.apply(None, step(40))
    assert view.eta() == 130.0
    view.apply(None, CutOff(t=0.0, phase="cut-off", reason="gone"))
    assert (view.phase, view.reason, view.active, view.eta()) == ("cut-off", "gone", False, None)
    for phase in ("needs-attention", "paused", "stopping", "recovering", "starting"):
        view.apply(None, State(t=0.0, phase=phase, reason="the data has changed"))
        assert (view.eta(), view.tokens_a_day()) == (None, None), phase
    view.apply(None, State(t=0.0, phase="running", reason=""))
    assert view.eta() == 130.0
    elsewhere = RunView(replace(SUMMARY, host="elsewhere", seen=0.0))
    elsewhere.apply(None, step(40))
    assert elsewhere.eta() is None and elsewhere.phase_name.startswith("seen ")
    seen = time.time()
    elsewhere.apply(1, Step(seen, step=41))
    when = time.strftime("%H:%M", time.localtime(seen))
    assert (elsewhere.reason, elsewhere.phase_name) == (f"last seen running {when} on elsewhere", f"seen {when}")
    elsewhere.apply(None, State(t=0.0, phase="finished", reason=""))
    assert (elsewhere.reason, elsewhere.phase_name) == ("", "finished")


def test_a_restart_without_a_checkpoint_starts_from_scratch() -> None:
    view = RunView(SUMMARY)
    view.apply(None, step(1))
    view.apply(None, Start(t=0.0, attempt=2, resumed_from=None))
    assert view.series["loss"].coverage() is None


def test_records_that_the_history_includes_are_not_counted_again() -> None:
    view = RunView(SUMMARY)

    def title() -> str:
        (pane := first_page(view)[0]).update(Viewport(view))
        return pane.titles[0]

    assert "checkpoint" not in {
        label for label, *_ in outlook.items(view, Checkpoints(), 0.0)
    }  # the log is not read yet
    assert title() == "loss · reading the log …"
    view.load_history(HistoryAnswer(0, {}, (0, None)))
    assert ("checkpoint", "none yet", 7) in outlook.items(view, Checkpoints(), 0.0)
    assert title() == "loss · no steps yet"
    view.load_history(HistoryAnswer(10, {"loss": [Bucket(x, 1.0, 1.0, 1.0, 1) for x in range(1, 11)]}, (0, None)))
    view.apply(1, step(10, lr=1e-3), update_charts=False)
    view.apply(None, Start(t=0.0, attempt=1, resumed_from=None), update_charts=False)
    assert view.series["loss"].coverage() == (1, 10, 10)


def test_the_newest_value_of_a_long_run_is_that_of_its_last_step(tmp_path: Path) -> None:
    """A bucket of the history holds several steps; their mean is no value that the run had."""
    history = History(tmp_path / "events.jsonl")
    history.add_events((number, step(number, float(number), tokens=number * 1000)) for number in range(1, 101))
    view = RunView(SUMMARY)
    view.load_history(history.answer(100, ["loss", "tokens", "val_loss"], 10, None, None, marks=False))
    assert (view.last("loss"), view.last("tokens"), view.last("val_loss")) == (100.0, 100_000, None)
    assert view.series["loss"].points[-1] == (100.0, 91.0, 95.5, 100.0)


def test_telemetry_from_the_log_is_a_range_and_live_telemetry_a_value() -> None:
    view = RunView(SUMMARY)
    view.apply(None, Telemetry(t=60.0, rss=[100, 300], device_used=None))
    view.apply(None, Telemetry(t=61.0, rss=250, device_used=None))
    assert view.series["rss"].points == [(60.0, 100, 200.0, 300), (61.0, 250, 250, 250)]
    assert not view.has_device


def test_the_eta_is_the_remaining_steps_at_the_current_speed() -> None:
    view = RunView(SUMMARY)
    view.apply(None, step(100))
    assert view.eta() == 100.0
    view.apply(None, State(t=0.0, phase="finished"))
    assert view.eta() is None


def test_an_edit_changes_the_batch_at_once() -> None:
    view = RunView(replace(SUMMARY, micro=8, accum=1))
    view.apply(None, Edit(ok=True, step=1, changed={"micro": (8, 4), "accum": (1, 2)}))
    assert (view.micro, view.accum) == (4, 2)
    view.apply(None, Edit(ok=False, step=1, changed={"micro": (4, 3)}, why="3 does not divide 8"))
    assert view.micro == 4


def test_what_is_left_counts_validation_and_no_pause() -> None:
    """Steps of 0.5 s, 20 s of validation after each tenth; it was paused for an hour at step 34."""
    live = {"train.val_every": 10, "train.save_every": 100}
    view, now = RunView(SUMMARY, live=live), 1e9
    for number in range(1, 61):
        now += 0.5 + 20.0 * (number % 10 == 1 and number > 1) + 3600.0 * (number == 35)
        view.apply(None, replace(step(number, micro=1, accum=1, context=32), t=now))
        if number == 20:
            assert view.eta() == 280 * 0.5  # one window: a pause could stand in it
    assert view.eta() == pytest.approx(240 * 2.5)
    view.apply(None, Spec(t=now, step=60, values={"batch.micro": 1, "batch.context": 32}, accum=1))
    assert view.tokens_a_day() == pytest.approx(32 * 86400 / 2.5)
    opened = RunView(SUMMARY, live=live)
    buckets = {name: list(one.buckets(1000)) for name, one in view.series.items() if len(one)}
    opened.load_history(HistoryAnswer(at=0, part=(0, None), series=buckets))
    assert opened.eta() == pytest.approx(240 * 2.5)
    for merged in (buckets["t"], buckets["step_s"]):  # a long run
        merged[:] = Series(merged).buckets(21)
    opened.load_history(HistoryAnswer(at=0, part=(0, None), series=buckets))
    assert opened.eta() == pytest.approx(240 * 2.5, rel=0.3)
