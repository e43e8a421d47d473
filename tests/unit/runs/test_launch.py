"""Waiting for the supervisor of a run that was just started."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from engine.runs import launch
from profiles.errors import UserError

if TYPE_CHECKING:
    from tests.unit.conftest import Make


@pytest.mark.parametrize(
    ("command", "timeout", "says"),
    [(["sleep", "60"], 0.1, "is still starting after 0.1 s"), (["false"], 60.0, "did not start")],
)
def test_a_supervisor_that_takes_long_is_not_said_to_have_failed(
    command: list[str], timeout: float, says: str, make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = subprocess.Popen(command)
    monkeypatch.setattr(launch, "start_supervisor", lambda run: process)
    monkeypatch.setattr(launch, "STARTUP_TIMEOUT", timeout)
    with pytest.raises(UserError, match=says):
        launch.ensure_supervisor(make_run(phase="starting"))
    process.kill()
    process.wait()
