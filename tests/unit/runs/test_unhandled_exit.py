"""A run whose trainer is dead and whose supervisor is alive but does nothing: it is stopped, or hangs."""

from __future__ import annotations

import os

import pytest
from msgspec.structs import replace

from engine.events.log import LogWriter
from engine.events.types import Checkpoint, Exit, State, Step
from engine.host.process import Lock, process_identity
from engine.runs.exit_reason import ExitReason
from engine.runs.state_file import StateFile
from engine.runs.supervisor import Supervisor
from tests.unit.conftest import DEAD, Make


@pytest.mark.parametrize("phase", ["starting", "running", "compiling", "saving", "paused", "stopping"])
def test_a_run_whose_trainer_is_dead_is_not_shown_as_running(make_run: Make, phase: str) -> None:
    run = make_run(phase=phase, supervisor=process_identity(os.getpid()), trainer=replace(DEAD, attempt=1))
    log = LogWriter(run.log_path, 1)
    log.write(Checkpoint(ok=True, step=40, path="/models/run/ckpt_step_40"))
    log.write(Step(step=41, loss=2.5))
    summary = run.summary()
    assert (summary.phase, summary.step, summary.loss) == ("recovering", 40, None)  # as a restart will be
    assert summary.reason == "its trainer has exited; its supervisor has not handled that yet"


def test_what_the_log_says_of_an_exit_counts(make_run: Make) -> None:
    run = make_run(supervisor=process_identity(os.getpid()), trainer=replace(DEAD, attempt=1))
    log = LogWriter(run.log_path, 1)
    log.write(Exit(signal="SIGKILL", why="killed"))
    log.write(State(phase="recovering", reason="killed"))
    assert [run.summary().phase, run.summary().reason] == ["recovering", "killed"]
    log.write(State(phase="starting", reason="waits for cpu, in use by run b"))
    assert [run.summary().phase, run.summary().reason] == ["starting", "waits for cpu, in use by run b"]


def test_a_trainer_that_is_newer_than_the_state_is_running(make_run: Make) -> None:
    run = make_run(supervisor=process_identity(os.getpid()), trainer=replace(DEAD, attempt=1))
    lock = Lock(run.trainer_lock)
    assert lock.acquire()
    assert run.summary().phase == "running"
    lock.release()


async def test_a_trainer_that_could_not_log_its_end_is_started_again_and_has_not_failed(make_run: Make) -> None:
    """What it ended as is not known, and the next one says it."""
    run = make_run(trainer=replace(DEAD, attempt=1))
    lock = Lock(run.supervisor_lock)
    assert lock.acquire()
    supervisor = Supervisor(run, lock)
    assert supervisor._handle_exit(ExitReason(0, None, "exited with code 0")) is not None
    lock.release()
    assert run.last_phase() == "recovering"


def test_a_phase_that_a_disk_refused_is_in_the_state_a_moment_later(make_run: Make) -> None:
    """A paused run writes no record that would bring the next write."""
    run = make_run()
    state, log = run.state(), LogWriter(run.log_path, 1)
    file = StateFile(run, state, log)
    state.phase = "paused"
    run.path.joinpath(f".state.json.{os.getpid()}").mkdir()
    file.save_if_urgent()
    assert file.failed and run.state().phase == "running"
    run.path.joinpath(f".state.json.{os.getpid()}").rmdir()
    file.save()
    assert not file.failed and run.state().phase == "paused"
    log.close()


@pytest.mark.parametrize(
    ("why", "reason"), [("", "kill requested"), ("killed (SIGKILL)", "while stopping: killed (SIGKILL)")]
)
async def test_a_trainer_that_stops_before_it_is_killed_leaves_a_reason(make_run: Make, why: str, reason: str) -> None:
    run = make_run(supervisor=DEAD, trainer=replace(DEAD, attempt=1))
    log = LogWriter(run.log_path, 1)
    log.write(State(phase="stopped", reason="requested from the command line"))
    log.write(State(phase="stopping", reason="kill requested"))
    log.write(Exit(code=None if why else 0, why=why))
    lock = Lock(run.supervisor_lock)
    assert lock.acquire()
    await Supervisor(run, lock).run()
    lock.release()
    assert (run.summary().phase, run.summary().reason) == ("stopped", reason)
