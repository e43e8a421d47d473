"""``mla-tui hooks``: lists the commands that run on events, and runs one with an example record."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from engine.events.phases import NEEDS_ATTENTION
from engine.runs.hook_events import EVENTS
from profiles.errors import UserError
from tui.cli.command_parser import Subparsers, add_command, add_subcommands

if TYPE_CHECKING:
    from engine.events.types import Event


def register(subparsers: Subparsers) -> None:
    example = "mla-tui hooks try finished"
    parser = add_command(subparsers, "hooks", "list the commands that run on events", example)
    parser.set_defaults(command=run)
    parser = add_command(add_subcommands(parser), "try", "run one now, with an example record", example)
    parser.add_argument("event", choices=EVENTS, help="the event whose hook to run")
    parser.set_defaults(command=try_hook)


def run(args: argparse.Namespace) -> int:
    from engine.runs import hooks

    commands = hooks.load()
    if not commands:
        print(f"no hooks yet; add them to {hooks.hooks_path()} (examples: docs/hooks.md)", file=sys.stderr)
    for event in EVENTS:
        if event in commands:
            print(f"{event:<10} {commands[event].strip()}")
    return 0


def try_hook(args: argparse.Namespace) -> int:
    """Run one hook with an example record, its output to the terminal. Raises ``UserError`` if it fails."""
    import asyncio

    from engine.events.log import stamped
    from engine.runs import hooks

    command = hooks.load().get(args.event)
    if command is None:
        raise UserError(f"{hooks.hooks_path()}: on_event.{args.event}: no command for this event; add one first")
    example = stamped(_example(args.event), attempt=1)
    content = hooks.payload("20261125-000000-example", "example", args.event, example)
    sys.stdout.flush()
    if why := asyncio.run(hooks.run_hook(command, content, sys.stdout.fileno(), Path.cwd())):
        raise UserError(f"{hooks.hooks_path()}: on_event.{args.event}: {why}")
    return 0


def _example(name: str) -> Event:
    from engine.events.types import Alert, Oom, State

    if name == "oom":
        return Oom(where="backward", wanted=2 << 30, action="micro 8 → 4", micro=4, accum=2)
    if name == "finished":
        return State(phase=name, reason="")
    if name == "failed":
        return State(phase=name, reason="train.out: the disk is full")
    if name == NEEDS_ATTENTION:
        reason = "/models/example: the checkpoints of this run are missing; put it back and the run continues"
        return State(phase=name, reason=reason)
    texts = {
        "nan": "the loss of step 1200 is not a number",
        "stall": "no progress for 10 times the usual time of a step",
    }
    return Alert(what=name, text=texts[name])
