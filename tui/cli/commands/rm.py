"""``mla-tui rm``: an ended run is forgotten."""

from __future__ import annotations

import argparse
import sys

from profiles.errors import SpecError
from tui.cli.command_parser import Subparsers, add_command
from tui.cli.run_argument import add_run_argument, find_run


def register(subparsers: Subparsers) -> None:
    words = "forget an ended run; its checkpoints stay"
    parser = add_command(subparsers, "rm", words, "mla-tui rm 20261123-194712")
    add_run_argument(parser)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    if args.run == "latest":
        raise SpecError("rm latest: name the run, so that it is the one you mean (mla-tui ls shows all)")
    run_dir = find_run(args)
    run_dir.remove()
    print(f"{run_dir.id}: forgotten; its checkpoints stay", file=sys.stderr)
    return 0
