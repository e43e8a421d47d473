"""``mla-tui hooks``: which commands are run when something happens to a run, and a try of one."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from engine.events.summary import HOOK_EVENTS
from profiles.errors import UserError
from tui.cli.command_parser import Subparsers, add_command, add_subcommands

# What the record of each event looks like, for a try without a run.
EXAMPLES: dict[str, dict[str, Any]] = {
    "finished": {"kind": "state", "phase": "finished", "reason": ""},
    "failed": {"kind": "state", "phase": "failed", "reason": "train.out: the disk is full"},
    "oom": {"kind": "oom", "where": "backward", "wanted": 2 << 30, "action": "micro 8 → 4", "micro": 4, "accum": 2},
    "nan": {"kind": "alert", "what": "nan", "text": "the loss of step 1200 is not a number"},
    "stall": {"kind": "alert", "what": "stall", "text": "no progress for 10 times the usual time of a step"},
}


def register(subparsers: Subparsers) -> None:
    example = "mla-tui hooks try finished"
    parser = add_command(subparsers, "hooks", "list the commands run on events", example)
    parser.set_defaults(command=run)
    parser = add_command(add_subcommands(parser), "try", "run one now, with an example of its record", example)
    parser.add_argument("event", choices=HOOK_EVENTS, help="what happens to a run")
    parser.set_defaults(command=run_one)


def run(args: argparse.Namespace) -> int:
    from engine.runs import hooks

    commands = hooks.load()
    if not commands:
        print(f"no hooks; write {hooks.hooks_path()} (docs/hooks.md has examples)", file=sys.stderr)
    for event in HOOK_EVENTS:
        if event in commands:
            print(f"{event:<10} {commands[event].strip()}")
    return 0


def run_one(args: argparse.Namespace) -> int:
    """Run one hook here with an example of its record; its output is ours. Raises ``UserError`` where it fails."""
    import asyncio

    from engine.runs import hooks

    command = hooks.load().get(args.event)
    if command is None:
        raise UserError(f"{hooks.hooks_path()}: on_event.{args.event}: there is no such command; write one there first")
    record = {"t": time.time(), "attempt": 1, **EXAMPLES[args.event]}
    content = hooks.payload("20261125-000000-example", "example", args.event, record)
    sys.stdout.flush()
    if why := asyncio.run(hooks.run_hook(command, content, sys.stdout.fileno(), Path.cwd())):
        raise UserError(f"{hooks.hooks_path()}: on_event.{args.event}: {why}")
    return 0
