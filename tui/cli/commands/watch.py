"""``mla-tui watch``: prints the records of a run as they are logged, as plain lines or JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.events.phases import CUT_OFF, FINISHED, STOPPED, is_active
from profiles.errors import SpecError
from tui.cli.command_parser import Subparsers, add_command
from tui.cli.run_argument import add_run_argument, find_run
from tui.cli.supervision import ensure_supervised, warn_of_version_mismatch
from tui.text.run_text import describe_outcome

if TYPE_CHECKING:
    from engine.events.run_dir import RunDir
    from engine.events.types import Event


def register(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "watch", "print the events of a run as they happen", "mla-tui watch latest --json")
    add_run_argument(parser)
    parser.add_argument("--from", dest="start", type=int, default=0, metavar="AT", help="start at this log offset")
    parser.add_argument("--no-follow", action="store_true", help="print what is logged now, and exit")
    parser.add_argument("--json", action="store_true", help="print one JSON record per line, each with its log offset")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Print the log until the run ends; return 0 if it finished or was stopped, 1 if it failed."""
    from engine.events.run_dir import is_on_other_host

    if args.start < 0:
        raise SpecError(f"--from: {args.start} is not an offset of the log, which begins at 0")
    run_dir = find_run(args)
    if not args.no_follow:
        ensure_supervised(run_dir)
        if is_on_other_host(state := run_dir.state()):
            seen = run_dir.summary().reason or f"on host {state.host}"
            print(f"{run_dir.id}: {seen}; watching the files it writes here", file=sys.stderr)
        warn_of_version_mismatch(run_dir)
    if args.json:
        _follow(run_dir, args.start, args.no_follow, _print_json)
    else:
        from tui.cli.line_printer import LinePrinter

        show = LinePrinter(int(run_dir.summary().steps or 0))
        _follow(run_dir, args.start, args.no_follow, lambda _, event: show(event))
    summary = run_dir.summary()
    if summary.phase == CUT_OFF or (not is_active(summary.phase) and not args.json):
        print(describe_outcome(summary), file=sys.stderr if args.json else sys.stdout)  # no record says "cut-off"
    return 0 if summary.phase in (FINISHED, STOPPED) or args.no_follow else 1


def _follow(run_dir: RunDir, start: int, no_follow: bool, show: Callable[[int | None, Event], None]) -> None:
    if no_follow:
        from engine.events.log import read_all

        for at, event in read_all(run_dir.log_path, start):
            show(at, event)
        return
    import asyncio

    from engine.runs.client import RunClient

    async def follow() -> None:
        async for at, event in RunClient(run_dir).events(start, live=False):
            show(at, event)

    asyncio.run(follow())


def _print_json(at: int | None, event: Event) -> None:
    from engine.host.struct_json import to_dict

    if at is not None:  # logged
        print(json.dumps({"at": at, **to_dict(event)}), flush=True)
