"""``mla-tui resume``: resumes a paused run, and restarts one that was cut off from its last checkpoint."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from engine.events.phases import CUT_OFF, has_ended
from engine.events.requests import ResumeRequest
from profiles.errors import SpecError, UserError
from profiles.printable import one_line
from tui.cli.command_parser import Subparsers, add_command
from tui.cli.requests import print_phase, request
from tui.cli.run_argument import RUN_HELP
from tui.cli.supervision import print_resuming

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir
    from engine.events.status import Summary
    from engine.runs.store import RunStore


def register(subparsers: Subparsers) -> None:
    help = "resume a paused run, or restart one that was cut off"
    parser = add_command(subparsers, "resume", help, "mla-tui resume latest")
    parser.add_argument("run", metavar="RUN", nargs="?", help=RUN_HELP)
    help = "resume every run that was cut off by a reboot, or by a kill of both its processes"
    parser.add_argument("--cut-off", action="store_true", help=help)
    parser.add_argument("--data-changed", action="store_true", help="continue with data that has changed")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    from engine.runs.store import RunStore

    if args.cut_off == (args.run is not None):
        raise SpecError("resume: name one run, or write --cut-off for all that were cut off (mla-tui ls lists them)")
    store = RunStore()
    if args.cut_off:
        if args.data_changed:
            raise SpecError("resume --data-changed: name one run, whose data may have changed")
        return _resume_all(store)
    run_dir = store.find(args.run)
    summary = run_dir.summary()
    if summary.phase == CUT_OFF:
        _restart(run_dir, summary)
    if summary.phase != CUT_OFF or args.data_changed:
        print_phase(request(run_dir, ResumeRequest(data_changed=args.data_changed)))
    return 0


def _resume_all(store: RunStore) -> int:
    """Resume every run of this host that was cut off, and start pending hooks; report failures and continue."""
    from engine.runs.supervision import run_pending_hooks

    summaries = store.summaries()
    if not any(summary.phase == CUT_OFF for summary in summaries):
        print("no run was cut off", file=sys.stderr)
    failed = False
    for summary in reversed(summaries):
        try:
            if summary.phase == CUT_OFF:
                _restart(store.find(summary.id), summary)
            elif has_ended(summary.phase):
                run_pending_hooks(store.find(summary.id))
        except (UserError, OSError) as error:  # whatever it is, it must not keep the other runs waiting
            failed |= summary.phase == CUT_OFF
            why = error if isinstance(error, UserError) else f"run {summary.id}: {error.filename}: {error.strerror}"
            print(one_line(f"mla-tui: {why}"), file=sys.stderr)
    return int(failed)


def _restart(run: RunDir, summary: Summary) -> None:
    from engine.runs.supervision import resume_run

    paused = run.last_phase() == "paused"
    resume_run(run)
    print_resuming(run, summary)
    if paused:
        print(f"{run.id} was paused and will be paused again; resume it with: mla-tui resume {run.id}", file=sys.stderr)
