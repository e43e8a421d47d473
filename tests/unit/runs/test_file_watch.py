"""What a supervisor does when the files of its run are replaced."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from engine.events.log import LogWriter, read_all
from engine.events.planned import Planned
from engine.events.types import Edit, State
from engine.host.process import Lock
from engine.host.programs import SUPERVISOR, python_module
from engine.runs.file_watch import FileWatch
from tests.unit.conftest import DEAD

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir
    from engine.events.status import RunStatus
    from tests.unit.conftest import Make


@contextmanager
def watched(run: RunDir, state: RunStatus) -> Iterator[FileWatch]:
    """A run as its supervisor has it: with its lock and its log open."""
    log, lock = LogWriter(run.log_path, 1), Lock(run.supervisor_lock)
    log.write(State(phase="running"))
    assert lock.acquire()
    yield FileWatch(run, lock, log, run.spec(), state)
    log.close()
    lock.release()


def test_a_supervisor_removes_what_killed_processes_were_writing(make_run: Make) -> None:
    run = make_run(phase="finished")
    lives = run.path / f".labels.json.{os.getpid()}"
    left = [run.path / f".state.json.{DEAD.pid}", run.home / f".calibration.json.{DEAD.pid}"]
    for path in (lives, *left):
        path.write_text("{")
    subprocess.run(python_module(SUPERVISOR, str(run.path)), check=True)
    assert lives.exists() and not any(path.exists() for path in left)


def test_a_log_that_the_trainer_was_killed_before_restoring_is_restored(make_run: Make) -> None:
    """Something swaps log and spec, and kills the trainer before it notices."""
    run = make_run()
    with watched(run, run.state()) as files:
        records = run.log_path.read_bytes()
        spec = run.path / "spec.json"
        content = spec.read_bytes()
        for path, other in ((run.log_path, content), (spec, records)):
            replacement = path.with_name("replacement")
            replacement.write_bytes(other)
            replacement.rename(path)
        assert files.check(True, len(records)), "left the run before the trainer had restored it"
        assert not files.check(False, len(records)) and files.needs_successor
        assert run.log_path.read_bytes() == records and spec.read_bytes() == content


def test_a_supervisor_leaves_once_the_trainer_has_restored_the_log(make_run: Make) -> None:
    run = make_run()
    with watched(run, run.state()) as files:
        records = run.log_path.read_bytes()
        run.log_path.unlink()
        assert files.check(True, len(records))
        run.log_path.write_bytes(records)
        further = LogWriter(run.log_path, 1)  # the trainer goes on there, and may be killed at once
        further.write(State(phase="paused"))
        further.close()
        assert not files.check(False, len(records)) and files.needs_successor
        assert len(list(read_all(run.log_path))) == 2, "wrote its own copy over that of the trainer"


def test_a_deleted_directory_is_restored_where_no_trainer_lives(make_run: Make) -> None:
    """Of a run that waits for a user, with the directory of all runs."""
    run = make_run()
    state = run.state()
    with watched(run, state) as files:
        records = run.log_path.read_bytes()
        shutil.rmtree(run.path.parent)
        assert files.check(True, len(records)), "the trainer restores it"
        assert not run.path.exists()
        assert not files.check(False, len(records)) and state.phase == "stopped"
        assert run.log_path.read_bytes().startswith(records) and run.has_supervisor()


def test_a_truncated_log_gets_the_edits_again_that_were_made_and_that_a_restart_has_yet_to_make(make_run: Make) -> None:
    run = make_run()
    state, spec = run.state(), run.spec()
    state.step, state.live = 7, {"optim.lr_scale": 0.5, "train.stop_step": 0}
    state.later = [Planned(9, {"train.stop_step": 20}), Planned(11, {"train.stop_step": 30})]
    with watched(run, state) as files:
        run.log_path.write_bytes(b"")
        assert not files.check(True, 100) and files.needs_successor
    edits = [event for _, event in read_all(run.log_path) if isinstance(event, Edit)]
    assert [(edit.step, edit.changed) for edit in edits] == [
        (7, {"lr_scale": (spec.optim.lr_scale, 0.5)}),
        (9, {"stop_step": (0, 20)}),
        (11, {"stop_step": (20, 30)}),
    ]
