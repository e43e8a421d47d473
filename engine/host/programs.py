"""Names the modules that run as separate programs with ``python -m``."""

from __future__ import annotations

import sys

COMMAND_LINE = "tui.cli"
SUPERVISOR = "engine.runs.supervisor"
TRAINER = "engine.train"
BENCH = "engine.train.measure.bench"


def python_module(module: str, *arguments: str) -> list[str]:
    """Return the command that runs ``module`` with this Python."""
    return [sys.executable, "-m", module, *arguments]
