"""``mla-tui checkpoints``: the checkpoints of a run, and whether they are whole."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from profiles.errors import UserError
from tui.cli.command_parser import Subparsers, add_command
from tui.cli.run_argument import add_run_argument, find_run
from tui.text import format as fmt


def register(subparsers: Subparsers) -> None:
    help = "list the checkpoints of a run, the newest first"
    parser = add_command(subparsers, "checkpoints", help, "mla-tui checkpoints latest")
    add_run_argument(parser, optional=True)
    parser.add_argument("--verify", action="store_true", help="read every file and hold it against its checksum")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """The checkpoints of a run; with ``--verify`` damaged content makes the status 1, as damaged sizes always do."""
    from dataclasses import replace

    from engine.checkpoints.checkpoint import verify
    from engine.checkpoints.inventory import inventory

    run_dir = find_run(args)
    kept = inventory(run_dir)
    if args.verify:
        for i, one in enumerate(kept):
            try:
                verify(Path(one.path))
            except UserError as error:
                kept[i] = replace(one, damage=str(error).partition(";")[0])
    if args.json:
        print(json.dumps([one.to_dict() for one in kept], indent=1))
    for one in kept if not args.json else ():
        marks = [word for word, is_so in (("newest", one.newest), ("best", one.best)) if is_so]
        facts = [fmt.timestamp(one.written), fmt.size(one.bytes), f"loss {fmt.loss(one.loss)}"]
        facts += [f"val {fmt.loss(one.val_loss)}", *filter(None, (one.why,)), *marks]
        print(f"step {fmt.exact(one.step)}  {one.path}  {', '.join(facts)}")
    for one in kept:
        if one.damage:
            print(f"mla-tui: {one.path}: {one.damage}", file=sys.stderr)
    if not kept:
        hint = f"write one with: mla-tui checkpoint {run_dir.id}"
        print(f"mla-tui: {run_dir.name} has no checkpoint; {hint}", file=sys.stderr)
    return 1 if any(one.damage for one in kept) else 0
