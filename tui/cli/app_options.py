"""Adds the options of the commands that open the app."""

from __future__ import annotations

import argparse


def add_app_options(parser: argparse.ArgumentParser) -> None:
    # Suppressed, so that a command's own parser does not take back what stood before the command.
    for flag, words in (
        ("--read-only", "the app only looks: whatever changes a run is refused"),
        ("--low-bandwidth", "the app paints less often, for slow lines"),
    ):
        parser.add_argument(flag, action="store_true", default=argparse.SUPPRESS, help=words)
    parser.set_defaults(opens_app=True)
