"""``mla-tui set``: changes settings of an active run."""

from __future__ import annotations

import argparse
import sys

from engine.events.requests import SetRequest
from profiles.errors import SpecError
from tui.cli.command_parser import Subparsers, add_command
from tui.cli.requests import request
from tui.cli.run_argument import add_run_argument, find_run


def register(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "set", "change settings of an active run", "mla-tui set latest micro=4")
    add_run_argument(parser)
    keys = (
        "micro, accum, lr_scale, val_every, save_every, sample_every, eval_every, stop_step;"
        " steps and decay (or decay=now) of a wsd schedule;"
        " with --unlock also sequences and context"
    )
    parser.add_argument("changes", nargs="+", metavar="KEY=VALUE", help=keys)
    parser.add_argument(
        "--unlock", action="store_true", help="also allow sequences and context, which change the tokens per step"
    )
    parser.add_argument(
        "--force", action="store_true", help="apply the change even if the predicted memory does not fit"
    )
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    from engine.events.types import Edit
    from engine.train.edits import check_keys
    from profiles.registry import check_once, parse_edit

    changes = dict(map(parse_edit, args.changes))
    check_once(args.changes, "set")
    check_keys(changes, args.unlock)  # a paused run would refuse them when it resumes, in days maybe
    answer = request(find_run(args), SetRequest(changes=changes, unlock=args.unlock, force=args.force))
    if not isinstance(answer, Edit):
        return 0
    if not answer.ok:
        raise SpecError(str(answer.why))
    changed = ", ".join(f"{k} {old} → {new}" for k, (old, new) in answer.changed.items())
    print(f"from step {answer.step + 1}: {changed or 'nothing changed'}", file=sys.stderr)
    return 0
