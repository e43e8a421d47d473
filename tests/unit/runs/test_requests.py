"""What the command line says of a request that has no answer yet."""

from __future__ import annotations

import os
from typing import Any

import pytest
from msgspec.structs import replace

from engine.events import commands
from engine.events.requests import SetRequest
from engine.host.process import Lock, process_identity
from engine.host.struct_json import write_struct
from engine.runs import client
from tests.unit.conftest import DEAD, Make
from tui.cli import requests
from tui.cli.main import main


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ("paused", "is checked and made after the run resumes"),
        ("needs-attention", "is checked and made when the run trains; it is needs-attention: gone"),
        ("recovering", "is checked and made when the run trains; it is recovering: gone"),
    ],
)
def test_a_request_waits_for_what_the_run_does_now(
    make_run: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], after: str, said: str
) -> None:
    """It was running when the request was sent, and its trainer was killed meanwhile."""
    run = make_run(supervisor=process_identity(os.getpid()))
    lock = Lock(run.supervisor_lock)
    assert lock.acquire()
    monkeypatch.setattr(client, "POLL_INTERVAL", 0.0)
    for timeout, seconds in (("SILENCE", 0.01), ("PAUSED_TIMEOUT", 0.01), ("ANSWER_TIMEOUT", 0.1)):
        monkeypatch.setattr(requests, timeout, seconds)
    append = commands.append

    def killed(*arguments: Any) -> str:
        trainer = process_identity(os.getpid()) if after == "paused" else DEAD
        write_struct(run.state_path, replace(run.state(), phase=after, reason="gone", trainer=trainer))
        return append(*arguments)

    monkeypatch.setattr(commands, "append", killed)
    assert requests.request(run, SetRequest(changes={"micro": 2})) is None
    lock.release()
    printed = capsys.readouterr().err
    assert said in printed and "micro-batch" not in printed


def test_a_paused_run_gets_no_edit_that_it_would_refuse(make_run: Make, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(phase="paused", supervisor=process_identity(os.getpid()))
    for change, message in {"context=32": "add --unlock", "lr=1": "cannot be changed while a run is active"}.items():
        assert main(["set", run.id, change]) == 2
        assert message in capsys.readouterr().err
    assert not run.commands_path.exists()
