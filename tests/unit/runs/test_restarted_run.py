"""What is said of a run that was restarted from a checkpoint."""

from __future__ import annotations

import os
import re

import pytest

from engine.events import run_dir
from engine.events.log import LogWriter
from engine.events.planned import Planned
from engine.events.types import Checkpoint, CutOff, Spec, Start, State, Step, Val
from engine.host.process import process_identity
from tests.unit.conftest import DEAD, Make
from tui.app.state.outlook import Checkpoints
from tui.app.state.run_view import RunView
from tui.app.widgets.run_detail import RunDetail
from tui.app.widgets.status_line import StatusLine
from tui.cli.main import main
from tui.cli.supervision import print_resuming
from tui.text.run_text import describe_outcome


@pytest.mark.parametrize(("step", "validated"), [(None, 20), (20, 20), (20, 22)])
def test_a_restart_takes_back_the_steps_behind_its_checkpoint(make_run: Make, step: int | None, validated: int) -> None:
    """Stopped before its next step, the run is at its checkpoint: what came after that is lost."""
    run = make_run(supervisor=DEAD, trainer=DEAD)
    before = LogWriter(run.log_path, 1)
    before.write(Step(step=23, loss=2.5, tok_s=100.0))
    before.write(Val(step=validated, loss=2.75))
    before.write(Checkpoint(step=22, path="/models/run/ckpt_step_22", ok=True))  # missing or damaged at the restart
    live, killed = RunView(run.summary()), State(phase="recovering", reason="killed (SIGKILL)")
    assert live.step == 23
    before.write(killed)
    live.apply(1, killed)
    assert run.summary().step == live.step == 22, "shows steps that are lost until the trainer has started"
    again = LogWriter(run.log_path, 2)
    again.write(Start(resumed_from=step))
    again.write(State(phase="stopped", reason="requested from the command line"))
    said = "stopped at step 0" if step is None else "stopped at step 20"
    said += ", validation loss 2.7500" if step == validated else ""
    assert describe_outcome(run.summary()) == f"{said}: requested from the command line"
    assert RunView(run.summary()).step == (step or 0)
    assert run.summary().checkpoint == f"/models/run/ckpt_step_{20 if step else 22}"
    again.write(Step(step=21, loss=2.25))
    assert describe_outcome(run.summary()).startswith("stopped at step 21, loss 2.2500")


def test_a_restart_is_known_by_its_batch_and_its_end_before_its_first_step(make_run: Make) -> None:
    run = make_run(steps=100)
    log = LogWriter(run.log_path, 2)
    log.write(Step(step=30, micro=8, accum=1, context=64))
    log.write(Start(resumed_from=20))
    values = {"batch.micro": 4, "batch.sequences": 8, "batch.context": 32, "train.steps": 100}
    log.write(Spec(step=20, values=values, accum=2, later=[Planned(25, {"train.steps": 200})]))
    found = run.summary()
    assert (found.micro, found.accum, found.context, found.steps) == (4, 2, 32, 200)
    assert run.current_state().later == [Planned(25, {"train.steps": 200})]
    log.write(Spec(step=25, values={**values, "train.steps": 200}, accum=2))
    assert run.summary().steps == 200 and not run.current_state().later


def test_a_run_that_was_cut_off_says_its_last_step_and_where_it_resumes(
    make_run: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("demo", supervisor=DEAD, trainer=DEAD, steps=100)
    monkeypatch.setenv("MLA_TUI_HOME", str(run.home))
    log = LogWriter(run.log_path, 1)
    log.write(State(phase="running"))
    log.write(Checkpoint(step=20, path="/models/demo/ckpt_step_20", ok=True))
    log.write(Step(step=20, loss=2.5))
    assert "resumes" not in describe_outcome(run.summary()), "nothing is lost"
    log.write(Step(step=23, loss=2.5))
    why = "neither trainer nor supervisor is alive"
    assert describe_outcome(run.summary()) == f"cut-off at step 23, loss 2.5000: {why}; resumes at step 20"
    assert main(["ls"]) == 0
    assert re.search(r" cut-off +23/100 .* demo  resumes at step 20\n", capsys.readouterr().out)
    print_resuming(run, run.summary())
    assert capsys.readouterr().err == f"{run.id} was cut off at step 23: {why}; resuming at step 20\n"
    view, header = RunView(run.summary()), StatusLine()
    view.apply(None, CutOff(t=0.0, phase="cut-off", reason=why))
    header.show(view, Checkpoints())
    assert "step 23/100 " in (first := "".join(text for text, _ in header.draw(80, 2)[0]))
    assert "resumes at 20" in first
    (line := RunDetail()).show(run.summary())
    assert f"cut-off: {why} · resumes at step 20 · demo" in "".join(text for text, _ in line.draw(120, 1)[0])


def test_where_a_run_resumes_is_known_before_its_first_checkpoint_and_from_older_versions(make_run: Make) -> None:
    older = make_run(supervisor=DEAD, trainer=DEAD, step=23, checkpoint="/models/run/ckpt_step_20", phase="running")
    assert (older.summary().step, older.summary().restarts_at) == (23, 20)
    launched = make_run(step=20, restarts_at=20, phase="starting")  # from the checkpoint of another run
    assert "resumes" not in describe_outcome(launched.summary())


def test_the_numbers_of_a_run_whose_disk_is_full_are_said_to_be_old(
    make_run: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("demo", supervisor=process_identity(os.getpid()), trainer=process_identity(os.getpid()), tok_s=9.0)
    monkeypatch.setenv("MLA_TUI_HOME", str(run.home))
    assert run.summary().tok_s == 9
    monkeypatch.setattr(run_dir, "is_full", lambda _: True)
    assert run.summary().tok_s is None, "shows a speed that nothing has measured since"
    assert main(["ls"]) == 0
    assert f"demo  {run.home}: the disk is full; the log of this run goes on when" in capsys.readouterr().out
