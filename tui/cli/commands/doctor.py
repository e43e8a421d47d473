"""``mla-tui doctor``: is this machine fit to hold a run for weeks?"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

from tui.cli.command_parser import Subparsers, add_command

if TYPE_CHECKING:
    from engine.checks.finding import Finding

COLOURS = {"ok": "32", "warn": "33", "error": "31"}


def register(subparsers: Subparsers) -> None:
    words = "look whether this machine can hold a run for weeks"
    parser = add_command(subparsers, "doctor", words, "mla-tui doctor")
    parser.add_argument("--json", action="store_true", help="as JSON, a list of what was found")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """A line for each thing looked at; 1 where one of them is bad."""
    from dataclasses import asdict

    from engine.checks.doctor import run_checks
    from engine.runs.store import RunStore

    findings = run_checks(RunStore())
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        width = shutil.get_terminal_size().columns
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        column = max(len(finding.check) for finding in findings) + 1
        for finding in findings:
            print("\n".join(_lines(finding, column, max(width, 40), colour)))
    return 1 if any(finding.level == "error" for finding in findings) else 0


def _lines(finding: Finding, column: int, width: int, colour: bool) -> list[str]:
    level = f"{finding.level:<6}"
    if colour:
        level = f"\x1b[{COLOURS[finding.level]}m{level}\x1b[0m"
    indent, room = " " * (6 + column), width - 6 - column
    lines = textwrap.wrap(finding.message, room, break_on_hyphens=False)
    if finding.fix:
        lines += textwrap.wrap(f"→ {finding.fix}", room, subsequent_indent="  ", break_on_hyphens=False)
    return [f"{level}{finding.check:<{column}}{lines[0]}", *(indent + line for line in lines[1:])]
