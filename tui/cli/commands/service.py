"""``mla-tui service``: resumes runs automatically after a reboot."""

from __future__ import annotations

import argparse
import sys

from engine.events.phases import CUT_OFF
from tui.cli.command_parser import Subparsers, add_command, add_subcommands


def register(subparsers: Subparsers) -> None:
    help = "resume runs automatically after a reboot, by a systemd user unit"
    parser = add_command(subparsers, "service", help, "mla-tui service install")
    inner = add_subcommands(parser, required=True)
    for name, help, run in (
        ("install", "write and enable the unit", install),
        ("remove", "disable and remove the unit", remove),
        ("show", "print the unit", show),
    ):
        add_command(inner, name, help, f"mla-tui service {name}").set_defaults(command=run)


def show(args: argparse.Namespace) -> int:
    from engine.checks import service

    print(service.unit_text(), end="")
    return 0


def install(args: argparse.Namespace) -> int:
    from engine.checks import service, systemd
    from engine.runs.store import RunStore

    steps_left = service.install()
    print(f"{systemd.unit_path()}: at boot, runs that were cut off resume from their last checkpoints", file=sys.stderr)
    for line in steps_left:
        print(line, file=sys.stderr)
    cut = [run.id for run in RunStore().summaries() if run.phase == CUT_OFF]
    if cut:
        print(
            f"{', '.join(cut)}: already cut off, will resume at the next boot; remove with: mla-tui rm RUN",
            file=sys.stderr,
        )
    return 0


def remove(args: argparse.Namespace) -> int:
    from engine.checks import service, systemd

    service.remove()
    after = "after a reboot, resume runs with: mla-tui resume --cut-off"
    print(f"{systemd.unit_path()}: removed; active runs continue; {after}", file=sys.stderr)
    return 0
