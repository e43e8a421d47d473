"""The checks that keep the house in order, with the settings of ``pyproject.toml``."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@pytest.mark.parametrize(
    "command",
    [("lint-imports", "--no-cache"), ("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",)],
    ids=" ".join,
)
def test_the_checks_pass(command: str) -> None:
    told = subprocess.run([BIN / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert told.returncode == 0, told.stdout + told.stderr


def test_the_command_is_installed_and_says_its_version() -> None:
    told = subprocess.run([BIN / "mla-tui", "--version"], capture_output=True, text=True, timeout=60)
    assert told.returncode == 0
    assert told.stdout.startswith("mla-tui ")


def test_every_command_explains_itself_with_an_example() -> None:
    usage = subprocess.run([BIN / "mla-tui", "--help"], capture_output=True, text=True, timeout=60).stdout
    names = re.findall(r"^    (\w+)", usage.partition("  COMMAND\n")[2], re.MULTILINE)
    assert {"launch", "train", "ls", "attach", "watch", "set", "stop", "data", "sample"} <= set(names)
    for name in names:
        told = subprocess.run([BIN / "mla-tui", name, "--help"], capture_output=True, text=True, timeout=60)
        assert told.returncode == 0
        assert "example: mla-tui" in told.stdout, name
