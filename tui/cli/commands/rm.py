"""``mla-tui rm``: removes an ended run, but not its checkpoints."""

from __future__ import annotations

import argparse
import sys
import time

from profiles.errors import SpecError
from tui.cli.command_parser import Subparsers, add_command
from tui.cli.run_argument import add_run_argument, find_run

ENDING_TIMEOUT = 5.0  # seconds; a run that was just stopped still has its processes


def register(subparsers: Subparsers) -> None:
    help = "remove an ended run, but not its checkpoints"
    parser = add_command(subparsers, "rm", help, "mla-tui rm 20261123-194712")
    add_run_argument(parser)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    if args.run == "latest":
        raise SpecError("rm latest: write the id or the name of the run to remove (mla-tui ls lists them)")
    run_dir = find_run(args)
    deadline = time.monotonic() + ENDING_TIMEOUT
    while run_dir.ended() and (run_dir.has_trainer() or run_dir.has_supervisor()) and time.monotonic() < deadline:
        time.sleep(0.05)
    run_dir.remove()
    print(f"{run_dir.id}: removed; its checkpoints are kept", file=sys.stderr)
    return 0
