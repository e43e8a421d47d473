"""Two processes resume a run that a reboot cut off."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from engine.events.log import read_all
from engine.events.run_dir import REBOOTED
from engine.events.types import Exit
from engine.host.process import Lock, boot_id
from engine.runs import supervision
from tests.events import of_kind

if TYPE_CHECKING:
    from tests.unit.conftest import Make


def test_a_resume_between_our_check_and_our_lock_is_not_overwritten(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(boot="another")
    resumed = 0

    class LateLock(Lock):
        """Another process resumes the run and releases the lock before we get it."""

        def acquire(self, timeout: float = 0.0) -> bool:
            nonlocal resumed
            if not resumed:
                resumed += 1
                supervision.resume_run(run)
            return super().acquire(timeout)

    monkeypatch.setattr(supervision, "Lock", LateLock)
    monkeypatch.setattr(supervision, "ensure_supervisor", lambda run: None)
    supervision.resume_run(run)
    assert [exit.why for exit in of_kind(Exit, read_all(run.log_path))] == [REBOOTED]
    assert run.state().boot == boot_id()
