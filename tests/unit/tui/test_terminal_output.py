"""What the commands print is free of control characters, wherever its text comes from."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.events.status import Summary
from engine.events.types import Alert, Checkpoint, Edit, Exit, Log, State
from engine.host.files import write_json
from engine.host.struct_json import to_dict
from engine.runs.store import RunStore
from tests.unit.tui.terminals import read_to_end
from tests.unit.tui.test_printable import unsafe
from tui.cli.main import main

ROOT = Path(__file__).parents[3]
EVIL = "x\x1b[2J\x1b]52;c;aGk=\x07\u202e\x9b1A\x7f\r\nfinished"


@pytest.fixture
def id(store: RunStore, make_run: Any) -> str:
    """A run in whose files every text is evil."""
    run, writer = make_run("demo", 3, phase="failed")
    spec = json.loads((run.path / "spec.json").read_text())
    spec["start"]["name"] = EVIL
    write_json(run.path / "spec.json", spec)
    for record in (
        Log(level="warning", text=EVIL),
        Alert(what=EVIL, text=EVIL),
        Checkpoint(step=3, ok=False, why=EVIL),
        Edit(ok=False, changed={EVIL: (EVIL, 1)}, step=3, why=EVIL),
        Exit(code=1, why=EVIL),
        State(phase="failed", reason=EVIL),
    ):
        writer.write(record)
    evil = dict.fromkeys(("name", "reason", "profile", "checkpoint"), EVIL)
    write_json(run.state_path, {**to_dict(run.state()), **evil})
    return str(run.id)


@pytest.mark.parametrize(
    ("args", "lines"),
    [
        (["ls"], 2),
        (["status", "latest"], len(Summary.__struct_fields__)),
        (["watch", "latest", "--no-follow"], 12),
        (["compare", "latest", EVIL], 1),
        (["status", EVIL + "?"], 1),
        (["checkpoints", "latest"], None),
        (["export", EVIL, EVIL], 1),
        (["launch", "-p", EVIL], 1),
        (["launch", "-s", f"name={EVIL}"], 1),
        (["launch", EVIL], None),
        ([EVIL], None),
    ],
    ids=lambda value: value[0][:9] if isinstance(value, list) else "",
)
def test_no_command_passes_a_control_character_on(
    id: str, args: list[str], lines: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        main(args)
    except SystemExit as ended:
        assert ended.code == 2
    out, err = capsys.readouterr()
    assert out + err and unsafe(out + err) <= {"\n"}
    if lines is not None:
        assert len((out + err).splitlines()) == lines, out + err


def test_json_holds_the_text_as_it_is(id: str, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = []
    for args in (["ls"], ["status", "latest"], ["watch", "latest", "--no-follow"]):
        main([*args, "--json"])
        outputs.append(capsys.readouterr().out)
        assert unsafe(outputs[-1]) <= {"\n"}
    assert json.loads(outputs[0])[0] | {"evals": []} == (status := json.loads(outputs[1]))
    assert status["checkpoint"] == EVIL
    assert json.loads(outputs[2].splitlines()[-1])["reason"] == EVIL


def on_a_terminal(*command: str) -> str:
    """Run a command with its output on a terminal, and return what it wrote."""
    master, slave = pty.openpty()
    done = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave, cwd=ROOT)
    os.close(slave)
    output = read_to_end(master)
    os.close(master)
    done.wait(30)
    return output


def test_a_terminal_gets_the_console_printable_and_a_pipe_gets_its_bytes(id: str, store: RunStore) -> None:
    console = "\x1b[1mbold\x1b[0m 10%\r20%\r\n\x1b]0;title\x07\x1b[2J\x9b日本\n".encode() + b"\xff\x1b["
    (store.runs / id / "console.log").write_bytes(console)
    logs = (sys.executable, "-m", "tui.cli", "logs", id)
    shown = on_a_terminal(*logs)
    assert shown.replace("\r\n", "\n") == "bold 10%\n20%\n\\u009b日本\n�\\u001b["
    assert subprocess.run(logs, cwd=ROOT, capture_output=True, check=True).stdout == console
    generated = (
        "from tui.cli.terminal_output import *\n"
        "with printable_output(): print('a\\x1b[2Jb', file=data_output()); print('\\x1b[2J')"
    )
    command = (sys.executable, "-c", generated)
    assert on_a_terminal(*command).splitlines() == ["a\\u001b[2Jb", "\\u001b[2J"]
    piped = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    assert piped.stdout == b"a\x1b[2Jb\n\\u001b[2J\n"


@pytest.mark.parametrize("size", [1, 3, 7])
def test_a_sequence_may_come_in_pieces(size: int, capsys: pytest.CaptureFixture[str]) -> None:
    from tui.cli.terminal_output import ConsoleOutput

    text = "a\x1b[1;31mred\x1b[0m\r\n\x1b]8;;link\x1b\\50%\r日\n".encode()
    output = ConsoleOutput()
    output._to_terminal = True
    for i in range(0, len(text), size):
        output.write(text[i : i + size])
    output.write(b"", final=True)
    assert capsys.readouterr().out == "ared\n50%\n日\n"
