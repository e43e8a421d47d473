"""``mla-tui attach``: opens the app on a run."""

from __future__ import annotations

import argparse

from tui.cli.app_options import add_app_options
from tui.cli.command_parser import Subparsers, add_command
from tui.cli.run_argument import add_run_argument, find_run
from tui.cli.supervision import ensure_supervised, warn_of_version_mismatch


def register(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "attach", "open the app on a run", "mla-tui attach latest")
    add_run_argument(parser, optional=True)
    add_app_options(parser)
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    import engine.host.light_asyncio  # noqa: F401, before anything that imports asyncio

    run_dir = find_run(args)
    if not args.read_only:
        ensure_supervised(run_dir)
    warn_of_version_mismatch(run_dir)
    from engine.runs.store import RunStore
    from tui.app.start import run_app

    return run_app(RunStore(), run_dir.id, read_only=args.read_only, low_bandwidth=args.low_bandwidth)
