"""``mla-tui rm``: removes an ended run, but not its checkpoints."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from profiles.errors import SpecError
from profiles.printable import counted, one_line
from tui.cli.command_parser import Subparsers, add_command
from tui.cli.run_argument import add_run_argument, find_run
from tui.text.format import size

if TYPE_CHECKING:
    from engine.runs.remove_run import Removal

ENDING_TIMEOUT = 5.0  # seconds; a run that was just stopped still has its processes


def register(subparsers: Subparsers) -> None:
    help = "remove an ended run, but not its checkpoints"
    parser = add_command(subparsers, "rm", help, "mla-tui rm 20261123-194712")
    add_run_argument(parser)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    from engine.events.run_dir import remove_rest
    from engine.runs.remove_run import plan_removal
    from engine.runs.store import RunStore

    if args.run == "latest":
        raise SpecError("rm latest: write the id or the name of the run to remove (mla-tui ls lists them)")
    store = RunStore()
    store.ids()  # raises where the folder of all runs must not be touched
    remove_rest(store.runs)  # also where it is the run of a removal that was interrupted, which is not found any more
    run_dir = find_run(args)
    deadline = time.monotonic() + ENDING_TIMEOUT
    while run_dir.ended() and (run_dir.has_trainer() or run_dir.has_supervisor()) and time.monotonic() < deadline:
        time.sleep(0.05)
    removal = plan_removal(store, run_dir)
    run_dir.remove()
    print(one_line(f"{run_dir.id}: removed; {_kept(removal)}"), file=sys.stderr)
    return 0


def _kept(removal: Removal) -> str:
    from engine.checkpoints.checkpoint import unreadable

    if not removal.folder:
        return "its damaged spec does not name the folder of its checkpoints"
    if why := unreadable(Path(removal.folder)):
        return f"its checkpoints in {removal.folder} cannot be read ({why}) and are kept"
    if not removal.checkpoints:
        return f"it has no checkpoints in {removal.folder}"
    found = f"{counted(removal.checkpoints, 'checkpoint')}, {size(removal.checkpoint_bytes)}"
    return f"its checkpoints are kept: {removal.folder} ({found})"
