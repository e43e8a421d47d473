"""``mla-tui stop``: saves a checkpoint and stops the run."""

from __future__ import annotations

import argparse
import sys
import time

from engine.events.phases import has_ended
from engine.events.requests import StopRequest
from tui.cli.command_parser import Subparsers, add_command
from tui.cli.requests import ANSWER_TIMEOUT, request
from tui.cli.run_argument import add_run_argument, find_run
from tui.text.run_text import describe_outcome


def register(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "stop", "save a checkpoint and stop a run", "mla-tui stop latest")
    add_run_argument(parser)
    parser.add_argument("--no-save", action="store_true", help="stop without a checkpoint")
    parser.add_argument("--kill", action="store_true", help="kill a run that does not respond, without a checkpoint")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    run_dir = find_run(args)
    record = request(run_dir, StopRequest(save=not (args.no_save or args.kill), kill=args.kill))
    if record is None:
        return 0
    deadline = time.monotonic() + ANSWER_TIMEOUT
    while not run_dir.ended() and time.monotonic() < deadline:
        time.sleep(0.05)
    summary = run_dir.summary()
    print(describe_outcome(summary), file=sys.stderr)
    return 0 if has_ended(summary.phase) else 1
