"""What is said of a run that was restarted from a checkpoint."""

from __future__ import annotations

import pytest

from engine.events.log import LogWriter
from engine.events.types import Checkpoint, Planned, Spec, Start, State, Step, Val
from tests.unit.conftest import DEAD, Make
from tui.app.state.run_view import RunView
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
