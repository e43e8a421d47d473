"""Names the modules that run as separate programs with ``python -m``."""

from __future__ import annotations

import sys

COMMAND_LINE = "tui.cli"
SUPERVISOR = "engine.runs"
TRAINER = "engine.train"
BENCH = "engine.train.measure.bench"
WITH_PARENT = "engine.host.with_parent"  # runs another of them

SAFE_PATH = {"PYTHONSAFEPATH": "1"}  # the same as -P, for the Python processes that a launcher starts


def python_module(module: str, *arguments: str) -> list[str]:
    """Return the command that runs ``module`` with this Python.

    ``-P``: the current directory is not searched for modules, so a ``json.py`` in it is neither imported nor executed.
    """
    return [sys.executable, "-P", "-m", module, *arguments]
