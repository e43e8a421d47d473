"""``mla-tui hooks``: lists the commands that run on events, and runs one with an example record."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from engine.events.summary import HOOK_EVENTS
from profiles.errors import UserError
from tui.cli.command_parser import Subparsers, add_command, add_subcommands

# An example record of each event.
EXAMPLES: dict[str, dict[str, Any]] = {
    "finished": {"kind": "state", "phase": "finished", "reason": ""},
    "failed": {"kind": "state", "phase": "failed", "reason": "train.out: the disk is full"},
    "needs-attention": {
        "kind": "state",
        "phase": "needs-attention",
        "reason": "/models/example: the checkpoints of this run are missing; put it back and the run continues",
    },
    "oom": {"kind": "oom", "where": "backward", "wanted": 2 << 30, "action": "micro 8 → 4", "micro": 4, "accum": 2},
    "nan": {"kind": "alert", "what": "nan", "text": "the loss of step 1200 is not a number"},
    "stall": {"kind": "alert", "what": "stall", "text": "no progress for 10 times the usual time of a step"},
}


def register(subparsers: Subparsers) -> None:
    example = "mla-tui hooks try finished"
    parser = add_command(subparsers, "hooks", "list the commands that run on events", example)
    parser.set_defaults(command=run)
    parser = add_command(add_subcommands(parser), "try", "run one now, with an example record", example)
    parser.add_argument("event", choices=HOOK_EVENTS, help="the event whose hook to run")
    parser.set_defaults(command=try_hook)


def run(args: argparse.Namespace) -> int:
    from engine.runs import hooks

    commands = hooks.load()
    if not commands:
        print(f"no hooks yet; add them to {hooks.hooks_path()} (examples: docs/hooks.md)", file=sys.stderr)
    for event in HOOK_EVENTS:
        if event in commands:
            print(f"{event:<10} {commands[event].strip()}")
    return 0


def try_hook(args: argparse.Namespace) -> int:
    """Run one hook with an example record, its output to the terminal. Raises ``UserError`` if it fails."""
    import asyncio

    from engine.runs import hooks

    command = hooks.load().get(args.event)
    if command is None:
        raise UserError(f"{hooks.hooks_path()}: on_event.{args.event}: no command for this event; add one first")
    record = {"t": time.time(), "attempt": 1, **EXAMPLES[args.event]}
    content = hooks.payload("20261125-000000-example", "example", args.event, record)
    sys.stdout.flush()
    if why := asyncio.run(hooks.run_hook(command, content, sys.stdout.fileno(), Path.cwd())):
        raise UserError(f"{hooks.hooks_path()}: on_event.{args.event}: {why}")
    return 0
