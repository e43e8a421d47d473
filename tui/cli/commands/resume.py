"""``mla-tui resume``: a paused run goes on, and one that was cut off starts again from its last checkpoint."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from engine.events.summary import CUT_OFF
from profiles.errors import SpecError, UserError
from tui.cli.command_parser import Subparsers, add_command
from tui.cli.requests import print_phase, request
from tui.cli.run_argument import RUN_HELP

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir
    from engine.runs.store import RunStore


def register(subparsers: Subparsers) -> None:
    words = "let a paused run go on, or start one that was cut off again"
    parser = add_command(subparsers, "resume", words, "mla-tui resume latest")
    parser.add_argument("run", metavar="RUN", nargs="?", help=RUN_HELP)
    words = "every run that a reboot or a kill of both processes cut off"
    parser.add_argument("--cut-off", action="store_true", help=words)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    from engine.runs.store import RunStore

    if args.cut_off == (args.run is not None):
        raise SpecError("resume: name one run, or write --cut-off for all that were cut off (mla-tui ls shows them)")
    store = RunStore()
    if args.cut_off:
        return _resume_all(store)
    run_dir = store.find(args.run)
    summary = run_dir.summary()
    if summary["phase"] == CUT_OFF:
        _take_over(run_dir, summary)
    else:
        print_phase(request(run_dir, "resume"))
    return 0


def _resume_all(store: RunStore) -> int:
    """Every run of this host that was cut off, and every hook; one run that cannot be resumed holds up no other."""
    from engine.runs.launch import run_pending_hooks

    for id in store.ids():
        run_pending_hooks(store.find(id))
    cut = [summary for summary in store.summaries() if summary["phase"] == CUT_OFF]
    if not cut:
        print("no run was cut off", file=sys.stderr)
    failed = 0
    for summary in reversed(cut):
        try:
            _take_over(store.find(summary["id"]), summary)
        except UserError as error:
            failed = 1
            print(f"mla-tui: {error}", file=sys.stderr)
    return failed


def _take_over(run: RunDir, summary: dict[str, Any]) -> None:
    from engine.runs.launch import resume_run

    paused = run.last_phase() == "paused"
    resume_run(run)
    print(f"{run.id} was cut off at step {summary['step'] or 0}: {summary['reason']}; it goes on", file=sys.stderr)
    if paused:
        print(f"{run.id} was paused and comes back so; let it go on with: mla-tui resume {run.id}", file=sys.stderr)
