"""Adds the argument that names a run, and finds that run."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir

RUN_HELP = "a unique part of a run's id, its name, or latest"


def add_run_argument(parser: argparse.ArgumentParser, optional: bool = False) -> None:
    """Add ``RUN``; where it is optional, ``latest`` is the default."""
    parser.add_argument("run", metavar="RUN", nargs="?" if optional else None, default="latest", help=RUN_HELP)


def find_run(args: argparse.Namespace) -> RunDir:
    """Return the run that ``RUN`` names. Raises ``UserError``."""
    from engine.runs.store import RunStore

    return RunStore().find(args.run)
