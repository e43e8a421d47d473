"""What the trainer logs when its disk refuses writes."""

from __future__ import annotations

import errno
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from engine.events.exit_codes import EXIT_RETRY
from engine.events.log import read_all
from engine.events.types import State, Step
from engine.host.process import Lock
from engine.host.programs import TRAINER, python_module
from engine.train import run_reporter
from engine.train.run_reporter import RunReporter

if TYPE_CHECKING:
    from tests.unit.conftest import Make


class Disk:
    """Fails the next ``times`` writes with ``error``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: int, times: int) -> None:
        self._write, self.error, self.left = os.write, error, times
        monkeypatch.setattr(os, "write", self.write)

    def write(self, fd: int, data: Any) -> int:
        if self.left:
            self.left -= 1
            raise OSError(self.error, os.strerror(self.error))
        return self._write(fd, data)


def test_a_full_disk_at_the_end_is_waited_for(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    reporter = RunReporter(run, 1)
    disk = Disk(monkeypatch, errno.ENOSPC, 4)
    reporter.record(Step(step=1))
    reporter.record(Step(step=2))
    reporter.close()
    assert disk.left == 0
    assert [record.step for _, record in read_all(run.log_path) if isinstance(record, Step)][-2:] == [1, 2]


def test_what_a_paused_run_could_not_log_is_logged_without_another_record(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    lock = Lock(run.supervisor_lock)
    assert lock.acquire()
    reporter = RunReporter(run, 1)
    disk = Disk(monkeypatch, errno.EIO, 3)  # the second says so on stderr
    reporter.record(State(id="a", phase="paused"))
    reporter.commands()  # a pause asks for them ten times a second
    assert disk.left == 0 and not list(read_all(run.log_path))
    monkeypatch.setattr(reporter, "_revive_due", 0.0)
    reporter.commands()
    assert [record.id for _, record in read_all(run.log_path) if isinstance(record, State)] == ["a"]
    lock.release()


def test_a_disk_that_refuses_for_a_moment_at_the_end_costs_no_record(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    reporter = RunReporter(run, 1)
    Disk(monkeypatch, errno.EIO, 3)
    reporter.record(State(phase="finished"))
    reporter.close()
    assert [record.phase for _, record in read_all(run.log_path) if isinstance(record, State)] == ["finished"]


def test_a_trainer_that_cannot_open_its_log_asks_to_be_restarted(make_run: Make) -> None:
    """Its exit status of an error would end the run for good."""
    run = make_run()
    run.log_path.unlink(missing_ok=True)
    run.log_path.mkdir()
    done = subprocess.run(python_module(TRAINER, "--run-dir", str(run.path)), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (EXIT_RETRY, f"{run.id}: [Errno 21] Is a directory: '{run.log_path}'\n")


def test_a_broken_disk_is_not_waited_for(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_reporter, "BROKEN_AFTER", 0.5)
    run = make_run()
    reporter = RunReporter(run, 1)
    Disk(monkeypatch, errno.EIO, 1000)
    reporter.record(Step(step=1))
    with pytest.raises(OSError, match="Input/output"):
        reporter.close()
