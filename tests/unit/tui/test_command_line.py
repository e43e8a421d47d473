"""Tests how the command line finds its commands, and that its parser loads nothing heavy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tui.cli import commands
from tui.cli.main import COMMANDS, main

HEAVY = ("asyncio", "numpy", "textual", "torch")


def test_every_module_of_the_commands_is_listed() -> None:
    (folder,) = map(Path, commands.__path__)
    modules = {path.stem for path in folder.glob("*.py")} - {
        "__init__",
        "app",
    }  # the app is what runs without a command
    assert modules == set(COMMANDS)


@pytest.mark.parametrize("args", [["--help"], ["launch", "--help"], ["bench", "--help"]], ids=" ".join)
def test_the_parser_loads_nothing_heavy(args: list[str]) -> None:
    code = (
        "import json, sys; from tui.cli.main import main\n"
        f"try: main({args})\n"
        f"except SystemExit: json.dump([m for m in {HEAVY} if m in sys.modules], sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stderr) == []
    assert done.stdout.startswith("usage: mla-tui")


@pytest.mark.parametrize("args", [["--help"], ["--help", "ls"], ["--read-only", "--help"]], ids=" ".join)
def test_help_lists_all_commands_in_order(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(args)
    listed = capsys.readouterr().out.partition("  COMMAND\n")[2]
    names = [line.split()[0] for line in listed.splitlines() if line[:4] == "    " and line[4:5].isalpha()]
    assert names == list(COMMANDS)


def test_an_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["lst"])
    assert "invalid choice: 'lst'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        *((["launch", option, ""], option) for option in ("--name", "--resume", "--init-from")),
        (["bench", "--profile", ""], "--profile"),
        (["report", "run", "-o", ""], "--out"),
        (["data", "pack", "a.txt", "--out", ""], "--out"),
        (["eval", "run", "--shard", "a.bin", ""], "--shard"),
    ],
    ids=str,
)
def test_an_option_left_empty_by_an_unset_variable_is_a_usage_error(
    args: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else the run would start from scratch, with another profile, or write into the current directory."""
    assert main(args) == 2
    assert capsys.readouterr().err == f"mla-tui: {said}: is empty; leave the option out, or name something\n"


def test_what_is_given_twice_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """Else one of its values would hold, and the other be dropped without a word."""
    twice, both = ["-s", "micro=4", "-s", "batch.micro=8"], ["-s", "sequences=8", "-s", "accum=2"]
    for args, said in (
        (["set", "latest", "micro=4", "batch.micro=8"], "set batch.micro: is given twice, as 'micro=4' and 'batch."),
        (["plan", *twice], "-s batch.micro: is given twice, as 'micro=4' and 'batch.micro=8'; give one of them"),
        (["launch", "-s", "backend=mlx", "--backend", "torch"], "-s launch.backend: is given twice, as 'backend=mlx'"),
        (["bench", *twice], "-s batch.micro: is given twice"),
        (["tune", *twice], "-s batch.micro: is given twice"),
        (["train", *twice], "-s batch.micro: is given twice"),
        (
            ["bench", "-s", "micro=2", "--grid", "micro=1,4"],
            "-s batch.micro: is given twice, as 'micro=2' and 'micro=1",
        ),
        (["bench", "--backend", "mlx", "--grid", "backend=torch"], "-s launch.backend: is given twice"),
        (["bench", "-s", "accum=2", "--grid", "sequences=8,16"], "-s sequences=8,16: would replace -s accum=2"),
        (["bench", "--steps", "2", "--seconds", "3"], "--steps and --seconds: give only one"),
        (["plan", *both], "-s accum=2: would replace -s sequences=8, because one follows from the other; give one"),
        (
            ["train", "-s", "data.phase=a", "-s", "data.sources={b = 1}"],
            "-s data.sources={b = 1}: would replace -s data",
        ),
        (["tune", "-s", "model.hidden_size=8", "-s", "model.name=x"], "-s model.name=x: would replace -s model.hidden"),
        (
            ["plan", "--tokens", "1B", "-s", "steps=9"],
            "--tokens: chooses sequences and steps; leave out -s train.steps",
        ),
        (["launch", "-p", "a", "--profile", "b"], "--profile: 'b' contradicts '-p a', given before; give one of them"),
        (["launch", "--name", "a", "--name", "b"], "--name: 'b' contradicts 'a', given before; give one of them"),
        (["train", "--backend", "torch", "--deepspeed"], "--deepspeed: 'deepspeed' contradicts '--backend torch', "),
        (["sample", "x", "--temperature", "nan"], "temperature: nan is not"),
        (["launch", "--queue", "--share-device"], "--queue and --share-device: give only one"),
    ):
        assert main(args) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"mla-tui: {said}") and error.count("\n") == 1


def test_an_empty_argument_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    for args, said in (
        (["tensorboard", "run", ""], "LOGDIR"),
        (["sample", ""], "CKPT"),
        (["data", "verify", ""], "PATH|PROFILE|RUN"),
    ):
        assert main(args) == 2
        assert capsys.readouterr().err == f"mla-tui: {said}: is empty; name something\n"


def test_what_is_no_text_is_not_written_to_a_file_named_as_standard_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("one\ntwo\n" * 99)
    for args, said in (
        (["data", "import", "a.txt", "--phase", "p", "--out", "-"], "--out"),
        (["data", "pack", "a.txt", "--phase", "p", "--out", "-"], "--out"),
        (["data", "demo", "--out", "-"], "--out"),
        (["export", "a", "-", "--format", "gguf"], "OUT"),
    ):
        assert main(args) == 1
        assert capsys.readouterr().err.startswith(f"mla-tui: {said}: - would be standard output")
    assert os.listdir() == ["a.txt"]


def test_an_offset_before_the_log_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", "run", "--from", "-1"]) == 2
    assert "--from: -1 is not an offset" in capsys.readouterr().err


def test_a_package_that_cannot_be_loaded_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is missing, or one of its libraries is, or a limit leaves too little memory for them."""
    monkeypatch.setitem(sys.modules, "engine.runs.store", None)
    assert main(["ls"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("mla-tui: a package cannot be loaded: ") and err.endswith("; see: mla-tui doctor\n"), err
    assert len(err.splitlines()) == 1


def test_a_current_folder_that_was_deleted_is_named(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    argv = [
        "sh",
        "-c",
        'rmdir "$PWD" && exec "$@"',
        "sh",
        sys.executable,
        "-P",
        "-m",
        "mla_tui",
        "plan",
        "-p",
        "cpu_demo",
    ]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(argv, cwd=gone, env=env, capture_output=True, text=True, timeout=60)
    said = "mla-tui: the current folder was deleted; change to one that is there, for example: cd\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)
