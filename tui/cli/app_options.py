"""Adds the options of the commands that open the app."""

from __future__ import annotations

import argparse


def add_app_options(parser: argparse.ArgumentParser) -> None:
    # No default here: the default of a command's parser would overwrite an option given before the command.
    for flag, help in (
        ("--read-only", "open the app without the actions that change a run"),
        ("--low-bandwidth", "redraw the app less often, for slow connections"),
    ):
        parser.add_argument(flag, action="store_true", default=argparse.SUPPRESS, help=help)
    parser.set_defaults(opens_app=True)
