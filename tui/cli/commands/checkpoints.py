"""``mla-tui checkpoints``: lists the checkpoints of a run, and verifies them."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from profiles.errors import UserError
from tui.cli.command_parser import Subparsers, add_command
from tui.cli.run_argument import add_run_argument, find_run
from tui.text import format as fmt
from tui.text.eval_text import result_lines


def register(subparsers: Subparsers) -> None:
    help = "list the checkpoints of a run, newest first"
    parser = add_command(subparsers, "checkpoints", help, "mla-tui checkpoints latest")
    add_run_argument(parser, optional=True)
    parser.add_argument("--verify", action="store_true", help="read every file and compare its checksum")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """List the checkpoints; return 1 if a file size is wrong, or with ``--verify`` a checksum."""
    from dataclasses import replace

    from engine.checkpoints.checkpoint import verify
    from engine.checkpoints.inventory import inventory
    from engine.checkpoints.ownership import checkpoints_of, saved_by

    run_dir = find_run(args)
    checkpoints = inventory(run_dir)
    if args.verify:
        for i, one in enumerate(checkpoints):
            try:
                verify(Path(one.path))
            except UserError as error:
                checkpoints[i] = replace(one, damage=str(error).partition(";")[0])
    if args.json:
        print(json.dumps([one.to_dict() for one in checkpoints], indent=1))
    for one in checkpoints if not args.json else ():
        labels = [label for label, applies in (("newest", one.newest), ("best", one.best)) if applies]
        facts = [fmt.timestamp(one.written), fmt.size(one.bytes), f"loss {fmt.loss(one.loss)}"]
        of_step = "" if one.is_validated else f" at step {fmt.exact(one.val_step)}"
        facts += [f"val {fmt.loss(one.val_loss)}{of_step}", *filter(None, (one.why,)), *labels]
        facts += [] if one.run is None else [f"of {saved_by(one.run)}, which this one has gone on from"]
        facts += ["verified: checksums match"] if args.verify and not one.damage else []
        print(f"step {fmt.exact(one.step)}  {one.path}  {', '.join(facts)}")
        print("".join(f"    {line}\n" for line in result_lines(one.evals)), end="")
    for one in checkpoints:
        if one.damage:
            print(f"mla-tui: {one.path}: {one.damage}", file=sys.stderr)
    if rest := (has := checkpoints_of(run_dir)).rest():
        print(f"mla-tui: {has.out}: also holds {rest}", file=sys.stderr)
    if not checkpoints:
        from engine.runs.find_checkpoint import no_checkpoint

        hint = "" if run_dir.ended() else f"; write one with: mla-tui checkpoint {run_dir.id}"
        print(f"mla-tui: {no_checkpoint(run_dir)}{hint}", file=sys.stderr)
    return 1 if any(one.damage for one in checkpoints) else 0
