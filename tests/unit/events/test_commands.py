"""Commands are delivered once and in order, even if a process dies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from engine.events import commands
from engine.events.commands import CommandReader
from engine.events.log import LogWriter
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
    ids = [commands.append(path, "set", {"changes": {"micro": n}}, "me") for n in (1, 2, 4)]
    commands_read = reader.poll()
    assert [c.id for c in commands_read] == ids
    assert [c.params["changes"]["micro"] for c in commands_read] == [1, 2, 4]
    assert {(c.method, c.by) for c in commands_read} == {("set", "me")}
    assert reader.poll() == []
    pause = commands.append(path, "pause", {}, "me")
    assert [c.id for c in reader.poll()] == [pause]


def test_a_restarted_reader_gets_unacknowledged_commands(path: Path, log: LogWriter) -> None:
    first, second = (commands.append(path, method, {}, "me") for method in ("pause", "checkpoint"))
    assert len(CommandReader(path, log.path).poll()) == 2
    log.write(State(phase="paused", id=first))
    assert [c.id for c in CommandReader(path, log.path).poll()] == [second]
    log.write(Checkpoint(id=second, ok=False))
    assert CommandReader(path, log.path).poll() == []


def test_a_torn_command_costs_only_itself(path: Path, log: LogWriter) -> None:
    commands.append(path, "pause", {}, "me")
    whole = path.read_bytes()
    for cut in range(1, len(whole)):
        path.write_bytes(whole[:cut])
        id = commands.append(path, "stop", {"save": False}, "me")
        commands_read = CommandReader(path, log.path).poll()
        assert commands_read[-1].id == id
        assert commands_read[-1].params == {"save": False}
        assert len(commands_read) == (2 if cut == len(whole) - 1 else 1)


@pytest.mark.parametrize(
    "line",
    [
        b'{"kind":"command","method":"pause","params":{}}',
        b'{"kind":"command","id":"x","method":"pause","params":[1]}',
        b'{"kind":"command","id":["x"],"method":"pause","params":{}}',
        b'{"kind":"command","id":"x","method":"explode","params":{}}',
        b'{"kind":"other","id":"x","method":"pause","params":{}}',
    ],
)
def test_a_line_that_is_no_command_is_skipped(path: Path, log: LogWriter, line: bytes) -> None:
    path.write_bytes(line + b"\n")
    id = commands.append(path, "pause", {}, "me")
    assert [c.id for c in CommandReader(path, log.path).poll()] == [id]


def test_an_infinite_number_becomes_null(path: Path, log: LogWriter) -> None:
    commands.append(path, "set", {"changes": {"micro": float("inf")}}, "me")
    assert CommandReader(path, log.path).poll()[0].params == {"changes": {"micro": None}}


def test_a_partly_written_command_raises(path: Path, log: LogWriter) -> None:
    script = """
import resource, signal, sys
from pathlib import Path
from engine.events import commands
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20, -1))
try:
    commands.append(Path(sys.argv[1]), "pause", {}, "me")
except OSError as error:
    print(error.strerror)
"""
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("No space left on device", "")
    assert CommandReader(path, log.path).poll() == []
