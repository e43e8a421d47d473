"""Commands are delivered once and in order, even if a process dies."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from engine.events import commands
from engine.events.commands import CommandReader
from engine.events.log import LogWriter
from engine.events.requests import CheckpointRequest, PauseRequest, SetRequest, StopRequest
from engine.events.types import Checkpoint, State


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "commands.jsonl"


@pytest.fixture
def log(tmp_path: Path) -> LogWriter:
    return LogWriter(tmp_path / "events.jsonl", 1)


def test_commands_come_once_and_in_order(path: Path, log: LogWriter) -> None:
    reader = CommandReader(path, log.path)
    assert reader.poll() == []
    ids = [commands.append(path, SetRequest(changes={"micro": n}), "me") for n in (1, 2, 4)]
    commands_read = reader.poll()
    assert [c.id for c in commands_read] == ids
    assert [c.request for c in commands_read] == [SetRequest(changes={"micro": n}) for n in (1, 2, 4)]
    assert {c.by for c in commands_read} == {"me"}
    assert reader.poll() == []
    pause = commands.append(path, PauseRequest(), "me")
    assert [c.id for c in reader.poll()] == [pause]


def test_a_restarted_reader_gets_unacknowledged_commands(path: Path, log: LogWriter) -> None:
    first, second = (commands.append(path, request, "me") for request in (PauseRequest(), CheckpointRequest()))
    assert len(CommandReader(path, log.path).poll()) == 2
    log.write(State(phase="paused", id=first))
    assert [c.id for c in CommandReader(path, log.path).poll()] == [second]
    log.write(Checkpoint(id=second, ok=False))
    assert CommandReader(path, log.path).poll() == []


def test_a_torn_command_costs_only_itself(path: Path, log: LogWriter) -> None:
    commands.append(path, PauseRequest(), "me")
    whole = path.read_bytes()
    for cut in range(1, len(whole)):
        path.write_bytes(whole[:cut])
        id = commands.append(path, StopRequest(save=False), "me")
        commands_read = CommandReader(path, log.path).poll()
        assert commands_read[-1].id == id
        assert commands_read[-1].request == StopRequest(save=False)
        assert len(commands_read) == (2 if cut == len(whole) - 1 else 1)


@pytest.mark.parametrize(
    "line",
    [
        b'{"kind":"command","t":1,"request":{"method":"pause"}}',
        b'{"kind":"command","t":1,"id":"x","request":["pause"]}',
        b'{"kind":"command","t":1,"id":"x","request":{}}',
        b'{"kind":"command","t":1,"id":"x","request":{"method":"set","changes":7}}',
        b'{"kind":"command","t":1,"id":["x"],"request":{"method":"pause"}}',
        b'{"kind":"command","t":1,"id":"x","request":{"method":"explode"}}',
        b'{"kind":"other","t":1,"id":"x","request":{"method":"pause"}}',
    ],
)
def test_a_line_that_is_no_command_is_skipped(path: Path, log: LogWriter, line: bytes) -> None:
    path.write_bytes(line + b"\n")
    id = commands.append(path, PauseRequest(), "me")
    assert [c.id for c in CommandReader(path, log.path).poll()] == [id]


def test_an_infinite_number_becomes_null(path: Path, log: LogWriter) -> None:
    commands.append(path, SetRequest(changes={"micro": float("inf")}), "me")
    assert CommandReader(path, log.path).poll()[0].request == SetRequest(changes={"micro": None})


def test_a_partly_written_command_raises(path: Path, log: LogWriter) -> None:
    script = """
import resource, signal, sys
from pathlib import Path
from engine.events import commands
from engine.events.requests import PauseRequest
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20, -1))
try:
    commands.append(Path(sys.argv[1]), PauseRequest(), "me")
except OSError as error:
    print(error.strerror)
"""
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("No space left on device", "")
    assert CommandReader(path, log.path).poll() == []


def test_a_command_is_on_the_disk_before_it_counts_as_given(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=f"may take effect nevertheless.*{re.escape(str(path))}"):
        commands.append(path, PauseRequest(), "me")
