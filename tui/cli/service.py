"""``mla-tui service``: resume runs after a reboot without being asked."""

from __future__ import annotations

import argparse
import sys

from engine.checks import service, systemd
from engine.events.summary import CUT_OFF
from engine.runs.store import RunStore


def show(args: argparse.Namespace) -> int:
    print(service.unit_text(), end="")
    return 0


def install(args: argparse.Namespace) -> int:
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
    service.remove()
    print(f"{systemd.unit_path()}: removed; runs go on, and after a reboot wait for: mla-tui resume", file=sys.stderr)
    return 0
