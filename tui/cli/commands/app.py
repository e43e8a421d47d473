"""``mla-tui`` without a command: opens the app."""

from __future__ import annotations

import argparse

from tui.cli.app_options import add_app_options


def register(parser: argparse.ArgumentParser) -> None:
    """Add the options that ``mla-tui`` takes without a command."""
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    add_app_options(parser)
    parser.set_defaults(command=run, read_only=False, low_bandwidth=False)


def run(args: argparse.Namespace) -> int:
    if args.version:
        from engine.host.version import VERSION

        print(f"mla-tui {VERSION}")
        return 0
    from engine.runs.store import RunStore
    from tui.app.first_start import is_first_start
    from tui.app.start import run_app

    store = RunStore()
    first = is_first_start(store)
    return run_app(store, read_only=args.read_only, low_bandwidth=args.low_bandwidth, first_start=first)
