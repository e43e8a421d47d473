"""Every module of this package that is started as a program of its own, by its name for ``python -m``."""

from __future__ import annotations

import sys

COMMAND_LINE = "tui.cli"
SUPERVISOR = "engine.runs.supervisor"
TRAINER = "engine.train"
BENCH = "engine.train.measure.bench"


def python_module(module: str, *arguments: str) -> list[str]:
    """The command that runs ``module`` with this Python."""
    return [sys.executable, "-m", module, *arguments]
