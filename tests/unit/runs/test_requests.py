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


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ("paused", "takes effect after the run resumes"),
        ("needs-attention", "takes effect when the run trains; it is needs-attention: gone"),
        ("recovering", "takes effect when the run trains; it is recovering: gone"),
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
