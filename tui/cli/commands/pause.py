"""``mla-tui pause``: pauses a run between two micro-batches."""

from __future__ import annotations

import argparse

from engine.events.requests import PauseRequest
from tui.cli.command_parser import Subparsers, add_command
from tui.cli.requests import print_phase, request
from tui.cli.run_argument import add_run_argument, find_run


def register(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "pause", "pause a run between two micro-batches", "mla-tui pause latest")
    add_run_argument(parser)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    print_phase(request(find_run(args), PauseRequest()))
    return 0
