"""Adds the argument ``RUN``, and finds the run it names."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir

RUN_HELP = "a run's name, a unique part of its id, or latest"


def add_run_argument(parser: argparse.ArgumentParser, optional: bool = False) -> None:
    """Add ``RUN``; if it is optional, the default is ``latest``."""
    parser.add_argument("run", metavar="RUN", nargs="?" if optional else None, default="latest", help=RUN_HELP)


def find_run(args: argparse.Namespace) -> RunDir:
    """Return the run that ``RUN`` names. Raises ``UserError``."""
    from engine.runs.store import RunStore

    return RunStore().find(args.run)
