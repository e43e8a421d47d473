"""``mla-tui rm``: removes an ended run, but not its checkpoints."""

from __future__ import annotations

import argparse
import sys

from profiles.errors import SpecError
from tui.cli.command_parser import Subparsers, add_command
from tui.cli.run_argument import add_run_argument, find_run


def register(subparsers: Subparsers) -> None:
    help = "remove an ended run, but not its checkpoints"
    parser = add_command(subparsers, "rm", help, "mla-tui rm 20261123-194712")
    add_run_argument(parser)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    if args.run == "latest":
        raise SpecError("rm latest: write the id or the name of the run to remove (mla-tui ls lists them)")
    run_dir = find_run(args)
    run_dir.remove()
    print(f"{run_dir.id}: removed; its checkpoints are kept", file=sys.stderr)
    return 0
