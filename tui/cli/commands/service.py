"""``mla-tui service``: resume runs after a reboot without being asked."""

from __future__ import annotations

import argparse
import sys

from engine.events.summary import CUT_OFF
from tui.cli.command_parser import Subparsers, add_command, add_subcommands


def register(subparsers: Subparsers) -> None:
    words = "resume runs after a reboot unasked, by a systemd user unit"
    parser = add_command(subparsers, "service", words, "mla-tui service install")
    inner = add_subcommands(parser, required=True)
    for name, words, run in (
        ("install", "write and enable the unit", install),
        ("remove", "disable it", remove),
        ("show", "print the unit", show),
    ):
        add_command(inner, name, words, f"mla-tui service {name}").set_defaults(command=run)


def show(args: argparse.Namespace) -> int:
    from engine.checks import service

    print(service.unit_text(), end="")
    return 0


def install(args: argparse.Namespace) -> int:
    from engine.checks import service, systemd
    from engine.runs.store import RunStore

    left = service.install()
    print(f"{systemd.unit_path()}: at boot, runs that were cut off go on from their last checkpoints", file=sys.stderr)
    for line in left:
        print(line, file=sys.stderr)
    cut = [run["id"] for run in RunStore().summaries() if run["phase"] == CUT_OFF]
    if cut:
        print(
            f"{', '.join(cut)}: cut off already, so resumed at the next boot; forget with: mla-tui rm RUN",
            file=sys.stderr,
        )
    return 0


def remove(args: argparse.Namespace) -> int:
    from engine.checks import service, systemd

    service.remove()
    print(f"{systemd.unit_path()}: removed; runs go on, and after a reboot wait for: mla-tui resume", file=sys.stderr)
    return 0
