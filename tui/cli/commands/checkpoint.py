"""``mla-tui checkpoint``: saves a checkpoint of an active run now."""

from __future__ import annotations

import argparse

from engine.events.requests import CheckpointRequest
from profiles.errors import UserError
from tui.cli.command_parser import Subparsers, add_command
from tui.cli.requests import request
from tui.cli.run_argument import add_run_argument, find_run


def register(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "checkpoint", "save a checkpoint now", "mla-tui checkpoint latest")
    add_run_argument(parser)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    from engine.events.types import Checkpoint

    answer = request(find_run(args), CheckpointRequest())
    if isinstance(answer, Checkpoint):
        if not answer.ok:
            raise UserError(str(answer.why))
        print(answer.path)
    return 0
