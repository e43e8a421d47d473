"""Whether the processes that a run's state names are alive: by pid and start time, on one boot, in one container."""

from __future__ import annotations

import os

import pytest
from msgspec.structs import replace

from engine.events.status import ProcessStatus
from engine.host.process import Lock, host_name, process_identity
from tests.unit.conftest import DEAD, Make


def test_a_reused_pid_is_not_the_trainer(make_run: Make) -> None:
    run = make_run(supervisor=DEAD, trainer=replace(process_identity(os.getpid()), start_ticks=1))
    assert not run.summary().trainer.alive


@pytest.mark.parametrize(("host", "alive"), [("elsewhere", None), (host_name(), False)])
def test_a_pid_of_another_host_or_boot_means_nothing(make_run: Make, host: str, alive: bool | None) -> None:
    run = make_run(trainer=process_identity(os.getpid()), host=host, boot="another")
    assert run.summary().trainer == ProcessStatus(os.getpid(), alive)


def test_a_machine_that_was_renamed_is_the_same_one(make_run: Make) -> None:
    run = make_run(trainer=process_identity(os.getpid()), host="its-name-before")
    summary = run.summary()
    assert (summary.host, summary.phase, summary.trainer.alive) == (host_name(), "running", True)


def test_of_a_process_in_another_container_its_lock_says_whether_it_is_alive(make_run: Make) -> None:
    """Its pid is that of another process here, even one that started at the same time."""
    run = make_run(supervisor=DEAD, trainer=replace(process_identity(os.getpid()), namespace=1))
    assert run.summary().trainer == ProcessStatus(os.getpid(), False, visible=False)
    assert run.summary().phase == "cut-off"
    lock = Lock(run.trainer_lock)
    assert lock.acquire()
    assert run.summary().trainer == ProcessStatus(os.getpid(), True, visible=False)
    assert run.summary().phase == "running"
    lock.release()
