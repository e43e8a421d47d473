"""``mla-tui init``: looks at this machine and writes a profile for it, with comments."""

from __future__ import annotations

import argparse
import shlex
import sys

from profiles.errors import UserError
from tui.cli.command_parser import Subparsers, add_command


def register(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "init", "write a profile for this machine", "mla-tui init --yes")
    parser.add_argument("--name", default="here", metavar="N", help="the name of the profile (default: here)")
    parser.add_argument("--yes", action="store_true", help="write it without asking, as in a script")
    parser.add_argument("--force", action="store_true", help="replace a profile of that name")
    parser.set_defaults(command=run)


def run(args: argparse.Namespace) -> int:
    from engine.memory.calibration import load_past_runs
    from engine.memory.hardware import detect_hardware
    from engine.memory.proposed_profile import propose
    from profiles.paths import default_home
    from profiles.user_profile import WIDTH, check_new_profile, write_profile
    from tui.text.proposal_text import found_lines

    check_new_profile(args.name, replace=args.force)
    hardware = detect_hardware()
    found = propose(hardware, load_past_runs(hardware, default_home()))
    print("\n".join([*found_lines(hardware, WIDTH), "", found.text]))
    if not args.yes and not _agrees(args.name):
        return 1
    path = write_profile(found.text, args.name, replace=args.force)
    print(f"written: {path}; start it with: mla-tui launch -p {shlex.quote(args.name)}")
    return 0


def _agrees(name: str) -> bool:
    """Ask on the terminal. Raises ``UserError`` where there is none to ask on."""
    if not sys.stdin.isatty():
        raise UserError(
            "init: there is no terminal to ask on; write the profile without a question: mla-tui init --yes"
        )
    answer = input(f"Write this as profile {name}? [Y/n] ").strip().lower()
    return answer in ("", "y", "yes")
