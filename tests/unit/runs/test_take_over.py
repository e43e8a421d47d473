"""Who resumes a run that a reboot cut off, when two do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine.events.log import read_all
from engine.events.run_dir import REBOOTED
from engine.host.process import Lock, boot_id
from engine.runs import launch

if TYPE_CHECKING:
    from tests.unit.runs.conftest import Make


def test_one_who_comes_between_a_look_and_the_lock_is_not_written_over(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(boot="another")
    others = 0

    class Late(Lock):
        """Another has resumed the run, and let go of the lock, before we get it."""

        def acquire(self, timeout: float = 0.0) -> bool:
            nonlocal others
            if not others:
                others += 1
                launch.resume_run(run)
            return super().acquire(timeout)

    monkeypatch.setattr(launch, "Lock", Late)
    monkeypatch.setattr(launch, "ensure_supervisor", lambda run: None)
    launch.resume_run(run)
    assert [record["why"] for _, record in read_all(run.log_path)] == [REBOOTED]
    assert run.state()["boot"] == boot_id()
