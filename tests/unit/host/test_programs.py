"""Programs of ours are not disturbed by what is in the current directory."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from engine.host import programs

EXECUTED = "import pathlib; pathlib.Path(__file__).with_name('executed').touch()\n"


@pytest.mark.parametrize("module", [programs.COMMAND_LINE, programs.TRAINER, programs.BENCH])
def test_modules_in_the_current_directory_are_not_imported(module: str, tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text(EXECUTED)
    for package in ("model", "tui", "engine"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(EXECUTED)
    done = subprocess.run(programs.python_module(module, "--help"), cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage" in done.stdout
    assert not list(tmp_path.rglob("executed"))
