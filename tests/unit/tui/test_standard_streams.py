"""What a command does when its output cannot be written, or its reader has ended."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.events.types import Step
from engine.train.reporter import ShowReporter
from profiles.errors import OutputError
from tui.cli.main import main

ROOT = Path(__file__).parents[3]
FULL = Path("/dev/full")
MAIN = [sys.executable, "-P", str(ROOT / "mla_tui.py")]
NO_SPACE = "standard output: No space left on device\n"


def shell(line: str, *args: str, **more: Any) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-o", "pipefail", "-c", line, "bash", *MAIN, *args]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, timeout=90, env=environment, **more)


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("args", [["ls", "--json"], ["--help"], ["--version"], ["completion", "bash"]], ids=" ".join)
def test_output_that_cannot_be_written_is_one_line(store: Any, args: list[str]) -> None:
    for unbuffered in ("", "1"):
        done = shell(f'PYTHONUNBUFFERED={unbuffered} "$@" > /dev/full', *args)
        assert (done.returncode, done.stderr) == (1, f"mla-tui: {NO_SPACE}")


def test_the_reader_of_the_output_may_leave(store: Any, make_run: Any) -> None:
    make_run("demo", 3)
    for args in (["ls"], ["csv", "latest"], ["--version"]):
        done = shell('"$@" | true', *args)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors_end_nothing(store: Any, make_run: Any, closed: str) -> None:
    run, _ = make_run("demo", 3)
    run.console_path.write_text("a line\n")
    for args in (["csv", "latest"], ["logs", "latest"]):  # these write bytes
        done = shell(f'"$@" {closed}', *args)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_file_for_eval_without_its_kind_is_told_how(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["eval", "run", "notes.txt"])
    assert "notes.txt; name a file by its kind: mla-tui eval RUN --text FILE\n" in capsys.readouterr().err


def test_errors_that_nobody_can_read_change_no_exit_status(store: Any) -> None:
    for where in ("2>&-", "2> /dev/full"):
        assert shell(f'"$@" {where}', "status", "nothing").returncode == 1


@pytest.mark.parametrize("error", [OutputError("standard output: full"), BrokenPipeError()], ids=["full", "closed"])
def test_a_run_in_the_foreground_survives_its_output(error: Exception, capfd: pytest.CaptureFixture[str]) -> None:
    def show(_: object) -> None:
        raise error

    reporter = ShowReporter(show)
    for step in (1, 2):
        reporter.record(Step(step=step, loss=1.0))
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    asked = [each.request.method for each in (*reporter.commands(), *reporter.commands())]
    assert asked == ([] if isinstance(error, OutputError) else ["stop"])


def test_an_unbuffered_line_is_written_at_once() -> None:
    """As containers want it: what is printed is there, whatever happens next."""
    script = "from tui.cli.standard_streams import standard_streams\nimport os\n"
    script += "with standard_streams(): print('here'); os._exit(0)"
    for unbuffered, printed in (("1", "here\n"), ("", "")):
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
        assert (done.stdout, done.stderr) == (printed, "")
