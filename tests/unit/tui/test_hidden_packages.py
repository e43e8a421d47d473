"""A folder on Python's path that hides one of the packages is named, and nothing in it is executed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mla_tui import PACKAGES, hidden_package

ROOT = Path(__file__).parents[3]
# As the installed command does it: its own folder and PYTHONPATH come before the packages.
COMMAND = (sys.executable, "-P", "-c", "import sys; from mla_tui import main; sys.exit(main())", "--version")


def run(folder: Path | str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    return subprocess.run(COMMAND, env=env, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("form", ["module", "package"])
@pytest.mark.parametrize("name", ["tui", "model"])
def test_a_module_of_the_same_name_is_refused_in_one_line(name: str, form: str, tmp_path: Path) -> None:
    path = tmp_path / (f"{name}.py" if form == "module" else f"{name}/__init__.py")
    path.parent.mkdir(exist_ok=True)
    path.write_text("print('executed')")
    done = run(tmp_path)
    hidden_by = path if form == "module" else path.parent
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == (
        f"mla-tui: {str(hidden_by)!r} hides the package {name} of mla-tui; start it without that folder on Python's"
        " path, for example: env -u PYTHONPATH mla-tui\n"
    )


def test_folders_of_those_names_hide_nothing(tmp_path: Path) -> None:
    for name in PACKAGES:
        (tmp_path / name).mkdir()
    done = run(tmp_path)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("mla-tui ")
    assert hidden_package() == ""


def test_the_module_is_the_command() -> None:
    argv = (sys.executable, "-P", "-m", "mla_tui", "--version")
    done = subprocess.run(argv, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("mla-tui ")


def test_ctrl_c_while_the_first_modules_load_prints_nothing(tmp_path: Path) -> None:
    (tmp_path / "pathlib.py").write_text("raise KeyboardInterrupt")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run((COMMAND[0], "-S", *COMMAND[1:]), env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_ctrl_c_after_the_command_is_done_is_no_traceback() -> None:
    """torch takes half a second to unload, in which a user may press it."""
    at_exit = "import atexit, signal; atexit.register(signal.raise_signal, signal.SIGINT); "
    command = (*COMMAND[:3], at_exit + COMMAND[3], "--version")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "") and done.stdout.startswith("mla-tui ")
