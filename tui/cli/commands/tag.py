"""``mla-tui tag``: adds tags to a run, or removes them."""

from __future__ import annotations

import argparse

from tui.cli.command_parser import Subparsers, add_command
from tui.cli.run_argument import add_run_argument, find_run


def register(subparsers: Subparsers) -> None:
    help = "tag a run, active or ended; ls --filter tag:NAME finds it"
    parser = add_command(subparsers, "tag", help, "mla-tui tag latest baseline lr-sweep")
    add_run_argument(parser)
    parser.add_argument("tags", metavar="TAG", nargs="+", help="one word")
    parser.add_argument("--remove", action="store_true", help="remove the tags instead")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    from engine.events.labels import change_tags

    run_dir = find_run(args)
    labels = change_tags(run_dir.path, *(((), args.tags) if args.remove else (args.tags, ())))
    print(f"{run_dir.id}: {' '.join(labels.tags) or 'no tags'}")
    return 0
