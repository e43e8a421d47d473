"""``mla-tui doctor``: checks whether this machine can keep a run going for weeks."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

from tui.cli.command_parser import Subparsers, add_command
from tui.cli.terminal_output import Coloured, print_lines
from tui.text.printable import printable

if TYPE_CHECKING:
    from engine.checks.finding import Finding

COLOURS = {"ok": "32", "warn": "33", "error": "31"}


def register(subparsers: Subparsers) -> None:
    help = "check whether this machine can keep a run going for weeks"
    parser = add_command(subparsers, "doctor", help, "mla-tui doctor")
    parser.add_argument("--json", action="store_true", help="print JSON, a list of findings")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    """Print the finding of each check; return 1 if one is an error."""
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
            print_lines(_lines(finding, column, max(width, 40), colour))
    return 1 if any(finding.level == "error" for finding in findings) else 0


def _lines(finding: Finding, column: int, width: int, colour: bool) -> list[str]:
    level = f"{finding.level:<6}"
    if colour:
        level = f"\x1b[{COLOURS[finding.level]}m{level}\x1b[0m"
    indent, space = " " * (6 + column), width - 6 - column
    lines = textwrap.wrap(printable(finding.message), space, break_on_hyphens=False)
    if finding.fix:
        lines += textwrap.wrap(f"→ {finding.fix}", space, subsequent_indent="  ", break_on_hyphens=False)
    return [Coloured(f"{level}{finding.check:<{column}}{lines[0]}"), *(indent + line for line in lines[1:])]
