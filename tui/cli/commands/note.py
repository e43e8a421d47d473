"""``mla-tui note``: sets the note of a run."""

from __future__ import annotations

import argparse

from tui.cli.command_parser import Subparsers, add_command
from tui.cli.run_argument import add_run_argument, find_run


def register(subparsers: Subparsers) -> None:
    help = "write a note to a run, active or ended; an empty one removes it"
    parser = add_command(subparsers, "note", help, "mla-tui note latest 'diverged after the lr edit'")
    add_run_argument(parser)
    parser.add_argument("text", metavar="TEXT", help="one line; it replaces the note that the run has")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    from engine.events.labels import change_note

    run_dir = find_run(args)
    labels = change_note(run_dir.path, args.text.strip())
    print(f"{run_dir.id}: {labels.note or 'no note'}")
    return 0
