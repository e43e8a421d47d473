"""Tests that the checks of ``pyproject.toml`` pass, and that the installed command explains itself."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


CHECKS = ("ruff check .", "ruff format --check .", "mypy", "lint-imports")


@pytest.mark.parametrize("check", CHECKS)
def test_the_checks_pass(check: str) -> None:
    program, *options = check.split()
    done = subprocess.run([BIN / program, *options], cwd=ROOT, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr


def test_make_lint_and_pre_commit_run_these_checks() -> None:
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert lint and tuple(re.findall(r"\$\(BIN\)/(.*)", lint[1])) == CHECKS
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    assert tuple(re.findall(r"entry: \.venv/bin/(.*)", hooks)) == CHECKS


def test_the_command_is_installed_and_prints_its_version() -> None:
    done = subprocess.run([BIN / "mla-tui", "--version"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert done.stdout.startswith("mla-tui ")


def test_the_help_of_every_command_has_an_example() -> None:
    usage = subprocess.run([BIN / "mla-tui", "--help"], capture_output=True, text=True, timeout=60).stdout
    names = re.findall(r"^    (\w+)", usage.partition("  COMMAND\n")[2], re.MULTILINE)
    assert {"launch", "train", "ls", "attach", "watch", "set", "stop", "data", "sample"} <= set(names)
    for name in names:
        done = subprocess.run([BIN / "mla-tui", name, "--help"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0
        assert re.search(r"example: .*mla-tui", done.stdout), name
