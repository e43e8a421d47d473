"""``mla-tui hooks``: which commands are run when something happens to a run, and a try of one."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path
from typing import Any

from engine.events.summary import EVENTS
from engine.runs import hooks
from profiles.errors import UserError

# What the record of each event looks like, for a try without a run.
EXAMPLES: dict[str, dict[str, Any]] = {
    "finished": {"kind": "state", "phase": "finished", "reason": ""},
    "failed": {"kind": "state", "phase": "failed", "reason": "train.out: the disk is full"},
    "oom": {"kind": "oom", "where": "backward", "wanted": 2 << 30, "action": "micro 8 → 4", "micro": 4, "accum": 2},
    "nan": {"kind": "alert", "what": "nan", "text": "the loss of step 1200 is not a number"},
    "stall": {"kind": "alert", "what": "stall", "text": "no progress for 10 times the usual time of a step"},
}


def show(args: argparse.Namespace) -> int:
    commands = hooks.load()
    if not commands:
        print(f"no hooks; write {hooks.hooks_path()} (docs/hooks.md has examples)", file=sys.stderr)
    for event in EVENTS:
        if event in commands:
            print(f"{event:<10} {commands[event].strip()}")
    return 0


def try_out(args: argparse.Namespace) -> int:
    """Run one hook here with an example of its record; its output is ours. Raises ``UserError`` where it fails."""
    command = hooks.load().get(args.event)
    if command is None:
        raise UserError(f"{hooks.hooks_path()}: on_event.{args.event}: there is no such command; write one there first")
    record = {"t": time.time(), "attempt": 1, **EXAMPLES[args.event]}
    content = hooks.payload("20261125-000000-example", "example", args.event, record)
    sys.stdout.flush()
    if why := asyncio.run(hooks.run_hook(command, content, sys.stdout.fileno(), Path.cwd())):
        raise UserError(f"{hooks.hooks_path()}: on_event.{args.event}: {why}")
    return 0
