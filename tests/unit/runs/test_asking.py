"""Commands: given once, in order, whatever died in between."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from engine.events import commands
from engine.events.commands import CommandReader
from engine.events.log import LogWriter


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    return tmp_path / "commands.jsonl"


@pytest.fixture
def log(tmp_path: Path) -> LogWriter:
    return LogWriter(tmp_path / "events.jsonl", 1)


def test_commands_come_once_and_in_order(asked: Path, log: LogWriter) -> None:
    reader = CommandReader(asked, log.path)
    assert reader.poll() == []
    ids = [commands.append(asked, "set", {"changes": {"micro": n}}, "me") for n in (1, 2, 4)]
    given = reader.poll()
    assert [c.id for c in given] == ids
    assert [c.params["changes"]["micro"] for c in given] == [1, 2, 4]
    assert {(c.method, c.by) for c in given} == {("set", "me")}
    assert reader.poll() == []
    pause = commands.append(asked, "pause", {}, "me")
    assert [c.id for c in reader.poll()] == [pause]


def test_a_restarted_reader_gets_what_nobody_acknowledged(asked: Path, log: LogWriter) -> None:
    first, second = (commands.append(asked, method, {}, "me") for method in ("pause", "checkpoint"))
    assert len(CommandReader(asked, log.path).poll()) == 2
    log.write("state", phase="paused", id=first)
    assert [c.id for c in CommandReader(asked, log.path).poll()] == [second]
    log.write("checkpoint", id=second, ok=False)
    assert CommandReader(asked, log.path).poll() == []


def test_a_torn_command_costs_only_itself(asked: Path, log: LogWriter) -> None:
    commands.append(asked, "pause", {}, "me")
    whole = asked.read_bytes()
    for cut in range(1, len(whole)):
        asked.write_bytes(whole[:cut])
        id = commands.append(asked, "stop", {"save": False}, "me")
        given = CommandReader(asked, log.path).poll()
        assert given[-1].id == id
        assert given[-1].params == {"save": False}
        assert len(given) == (2 if cut == len(whole) - 1 else 1)


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
def test_a_line_that_is_no_command_is_passed_over(asked: Path, log: LogWriter, line: bytes) -> None:
    asked.write_bytes(line + b"\n")
    id = commands.append(asked, "pause", {}, "me")
    assert [c.id for c in CommandReader(asked, log.path).poll()] == [id]


def test_a_number_without_end_is_null(asked: Path, log: LogWriter) -> None:
    commands.append(asked, "set", {"changes": {"micro": float("inf")}}, "me")
    assert CommandReader(asked, log.path).poll()[0].params == {"changes": {"micro": None}}


def test_a_command_that_the_disk_took_only_a_part_of_is_refused(asked: Path, log: LogWriter) -> None:
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
    done = subprocess.run([sys.executable, "-c", script, str(asked)], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("No space left on device", "")
    assert CommandReader(asked, log.path).poll() == []
